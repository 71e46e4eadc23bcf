// What both reports' pages share.
const $ = id => document.getElementById(id);
const fill = (select, entries) => {
  const before = select.value;
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
  if (entries.some(([value]) => value === before)) select.value = before;
};

function moveBar() {
  const at = $("slide").value;
  $("right").style.clipPath = `inset(0 0 0 ${at}%)`;
  $("bar").style.left = `${at}%`;
}

function followPointer() {
  $("slide").oninput = moveBar;
  $("viewer").onpointermove = event => {
    if (event.buttons || event.pointerType === "mouse") {
      const box = $("viewer").getBoundingClientRect();
      $("slide").value = 100 * (event.clientX - box.left) / box.width;
      moveBar();
    }
  };
}

// Ticks of rate: by itself the axis shows bare digits.
const RATES = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];

// A plot of rate and distortion: one trace a codec, of the points that belong.
function rdPlot(place, codecs, points, metric, text) {
  const traces = codecs.map(codec => {
    const rows = points.filter(p => p.codec === codec.name && p[metric.name] !== null).sort((a, b) => a.bpp - b.bpp);
    return {
      name: codec.label, x: rows.map(p => p.bpp), y: rows.map(p => p[metric.name]), mode: "lines+markers",
      line: { color: codec.colour, width: codec.ours ? 3 : 1.5 },
      text: rows.map(p => text(codec, p)), hovertemplate: "%{text}<br>%{x:.4f} bpp, %{y:.4f}<extra></extra>",
    };
  }).filter(trace => trace.x.length);
  const layout = {
    margin: { t: 10, r: 10 }, legend: { y: 0.92 },
    xaxis: { type: "log", title: { text: "bits per pixel" }, tickvals: RATES, ticktext: RATES.map(String) },
    yaxis: { title: { text: metric.label, standoff: 8 }, autorange: metric.higher ? true : "reversed" },
  };
  Plotly.react(place, traces, layout, { responsive: true, displaylogo: false });
}
