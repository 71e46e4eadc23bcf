"""``python -m testing.report --out OUT --data DIR``: one HTML file to look at, from what ``testing.evaluate`` left in OUT.

Interactive rate-distortion curves (hover: picture, bytes, setting) and BD-rate tables against both references, and a
viewer that slides between the original, our decoded picture and any peer's at the nearest rate; FID and KID too where
``testing.fid --json >> OUT/fid.jsonl`` left them. Self-contained: it opens from disk, offline.
"""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from tqdm import tqdm

from live.command import Parser, run
from live.errors import InputError
from live.files import write_atomic
from live.media import read_picture

from .anchors import ANCHORS
from .bdrate import cell, matrix
from .curves import colours_of, label_of
from .evaluate import POINTS
from .measure import coded_file
from .ours import OURS, codec_of
from .results import METRICS, REFERENCES, load, mean_per_setting, names_of, of_dataset, select

MEAN = "mean over the pictures that all codecs coded"
SHOWN_QUALITY = 90
HERE = Path(__file__).parent


def data_uri(image: Image.Image) -> str:
    """A picture for the page: WebP of ``SHOWN_QUALITY``, which no metric is measured on."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=SHOWN_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def beside(points: pd.DataFrame, ours: Any) -> list[Any]:
    """A row of ours, and for every other codec its row of nearest size for the same picture."""
    peers = points[(points["picture"] == ours.picture) & (points["codec"] != ours.codec)]
    nearest = peers.assign(apart=(peers["bytes"] - ours.bytes).abs()).sort_values("apart").groupby("codec", sort=False)
    return [ours, *nearest.head(1).itertuples(index=False)]


def view(original: Image.Image, rows: list[Any], files: list[tuple[str, Path]]) -> dict[str, Any]:
    """One picture at one of our settings: the original, ours, and every peer at its setting of nearest size.

    rows: see ``beside``; files: for each row its codec, as ``codec_of`` takes it, and its file.
    """
    size = f"{original.width} x {original.height}"
    images = [{"codec": "original", "label": "original", "caption": f"original, {size}", "src": data_uri(original)}]
    for row, (codec, path) in zip(rows, files, strict=True):
        values = (f"{METRICS[m].label} {getattr(row, m):.3f}" for m in METRICS if not pd.isna(getattr(row, m)))
        caption = f"{label_of(row.codec)}: {row.bytes} bytes, {row.bpp:.4f} bpp, {', '.join(values)}"
        decoded = codec_of(codec).decode(path.read_bytes())
        images.append({"codec": row.codec, "label": label_of(row.codec), "caption": caption, "src": data_uri(decoded)})
    return {"picture": rows[0].picture, "setting": rows[0].setting, "images": images}


def views(points: pd.DataFrame, out: Path, data: Path, codecs: dict[str, str], limit: int) -> list[dict[str, Any]]:
    """The viewer's entries for the first ``limit`` pictures, every one of our settings.

    codecs: what ``codec_of`` takes, by name, ours first; peers may be left out. InputError before anything is made when
    a photo is not in ``data``, or a coded file no longer in ``out``.
    """
    points = points[points["reference"] == "original"]
    ours = points[points["codec"] == next(iter(codecs))].sort_values(["picture", "bytes"])
    names = list(ours["picture"].unique())[:limit]
    if missing := [each for each in names if not (data / each).is_file()]:
        raise InputError(f"{data} does not hold {missing[0]}; give the folder that was evaluated")
    jobs = []
    for row in ours[ours["picture"].isin(names)].itertuples(index=False):
        rows = beside(points, row)
        given = [(codecs.get(each.codec, each.codec), each) for each in rows]
        if folders := [name for name, each in given if each.codec not in codecs and name not in OURS | ANCHORS]:
            raise InputError(
                f"the results hold {folders[0]}; give its folder of checkpoints too: --ours {next(iter(codecs.values()))},FOLDER"
            )
        files = [(codec, coded_file(out, codec, each.picture, each.setting)) for codec, each in given]
        if gone := [path for _, path in files if not path.exists()]:
            raise InputError(f"{gone[0]} is gone; the report needs the files that testing.evaluate left in its folder")
        jobs.append((rows, files))
    progress = tqdm(jobs, desc="pictures", unit="view")
    return [view(read_picture(data / rows[0].picture), rows, files) for rows, files in progress]


def bd_tables(points: pd.DataFrame, ours: str, metrics: list[str]) -> str:
    """HTML: for each reference that ours was scored against, a heading and a table."""
    references = [name for name in REFERENCES if ((points["codec"] == ours) & (points["reference"] == name)).any()]
    tables = (f"<h3>{REFERENCES[name].capitalize()}</h3>{bd_table(points, ours, metrics, name)}" for name in references)
    return "".join(tables)


def bd_table(points: pd.DataFrame, ours: str, metrics: list[str], reference: str) -> str:
    """HTML: one row a peer, one column a metric, BD-rate of ours over it against a reference."""
    peers = [name for name in points.loc[points["reference"] == reference, "codec"].unique() if name != ours]
    pairs = [matrix(points[points["codec"].isin((peer, ours))], reference) for peer in peers]
    rates = pd.concat(pairs or [matrix(points, reference)]).query("test == @ours").set_index(["anchor", "metric"])
    head = "".join(f"<th>{html.escape(METRICS[name].label)}</th>" for name in metrics)
    rows = [f"<tr><th>peer</th>{head}</tr>"]
    for codec in peers:
        given = [rates.loc[(codec, name)] if (codec, name) in rates.index else None for name in metrics]
        cells = [f"<td>{'–' if row is None else cell(row)}</td>" for row in given]
        rows.append(f"<tr><td>{html.escape(label_of(str(codec)))}</td>{''.join(cells)}</tr>")
    return f"<table class='bd' id='bd-{reference}'>{''.join(rows)}</table>"


def distances(path: Path) -> str:
    """HTML: FID and KID, a row a line of what ``testing.fid --json`` printed; empty where there is no such file."""
    if not path.is_file():
        return ""
    rows = ["<tr><th>codec</th><th>setting</th><th>bpp</th><th>FID</th><th>KID x 1000</th><th>patches</th></tr>"]
    try:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            name = html.escape(label_of(row["codec"]))
            cells = (name, f"{row['setting']:g}", f"{row['bpp']:.4f}", f"{row['fid']:.1f}", f"{1000 * row['kid']:.1f}")
            patches = f"{row['patches']} of {row['patch']} px"
            rows.append("<tr>" + "".join(f"<td>{text}</td>" for text in (*cells, patches)) + "</tr>")
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not what testing.fid --points --json prints; remove it") from None
    return f"<h2>FID and KID against the originals</h2><table class='bd' id='fid'>{''.join(rows)}</table>"


def page(points: pd.DataFrame, ours: str, shown: list[dict[str, Any]], distance_table: str = "") -> str:
    """The whole HTML file for points of one dataset; distance_table: of ``distances``."""
    metrics = [name for name in METRICS if points[name].notna().any()]
    columns = ["codec", "setting", "reference", "picture", "bytes", "bpp", *metrics]
    rows = pd.concat([means(points).assign(picture=MEAN)[columns], points[columns]])
    codecs = list(points["codec"].unique())
    colours = colours_of(codecs)
    data = {
        "points": json.loads(rows.round(5).to_json(orient="records")),
        "codecs": [
            {"name": c, "label": label_of(c), "colour": colours[c], "ours": c == ours} for c in codecs
        ],
        "metrics": {m: {"label": METRICS[m].label, "higher": METRICS[m].higher_is_better} for m in metrics},
        "references": [[name, REFERENCES[name]] for name in REFERENCES if (points["reference"] == name).any()],
        "pictures": [MEAN, *points["picture"].unique()],
        "views": shown, "ours": ours, "oursLabel": label_of(ours),
    }  # fmt: skip
    return filled("report.html", {
        "TITLE": html.escape(f"{', '.join(points['dataset'].unique())}, {points['picture'].nunique()} pictures"),
        "OURS_LABEL": html.escape(label_of(ours)),
        "SHOWN_QUALITY": str(SHOWN_QUALITY),
        "BD_TABLES": bd_tables(points, ours, metrics),
        "DISTANCES": distance_table,
    }, data)  # fmt: skip


def means(points: pd.DataFrame) -> pd.DataFrame:
    """The means of every setting, against each reference over the pictures that all codecs coded at all their settings."""
    parts = []
    for reference, part in points.groupby("reference", sort=False):
        parts.append(mean_per_setting(select(part, list(part["codec"].unique()), str(reference))))
    return pd.concat(parts)


def filled(template: str, fields: dict[str, str], data: dict[str, Any]) -> str:
    """A page of this folder with its fields, its data, and the style and scripts that all pages share."""
    from plotly.offline import get_plotlyjs

    shared = {"STYLE": (HERE / "report.css").read_text(), "SCRIPT": (HERE / "report.js").read_text()}
    text = (HERE / template).read_text()
    for name, value in {**fields, **shared, "PLOTLY": get_plotlyjs()}.items():
        text = text.replace(f"__{name}__", value)
    return text.replace("__DATA__", json.dumps(data).replace("</", "<\\/"))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.report", description="One HTML file of what testing.evaluate measured.")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder of testing.evaluate")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the photos that were evaluated")
    what = "the codec in question, or a folder of checkpoints; behind it, other folders that were evaluated"
    parser.add_argument("--ours", default="live_plus", metavar="A,B", help=what)
    parser.add_argument("--dataset", metavar="NAME", help="needed when the results hold several")
    parser.add_argument("--pictures", type=int, default=4, metavar="N", help="pictures in the viewer (%(default)s)")
    args = parser.parse_args(argv)
    if args.pictures < 1:
        raise InputError("--pictures must be at least 1")
    points = of_dataset(load(args.out / POINTS), args.dataset)
    codecs = {codec_of(name).name: name for name in names_of(args.ours, "codec")}
    ours = next(iter(codecs))
    if ours not in set(points["codec"]):
        known = ", ".join(points["codec"].unique()) or "none"
        raise InputError(f"the results hold no points of {ours}; they hold {known}")
    distance_table = distances(args.out / "fid.jsonl")  # refused now, not after the pictures
    shown = views(points, args.out, args.data, codecs, args.pictures)
    path = args.out / "report.html"
    write_atomic(path, page(points, ours, shown, distance_table).encode())
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
