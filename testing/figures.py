"""``python -m testing.figures``: what the README shows of the committed results: its tables, and the plots in assets/.

The text between the README's two ``figures`` marks is written from results/, so no measurement of ours there is typed by
hand (``PUBLISHED`` and results/published.csv hold others', for scale), and between the two of video, once there are
results of clips, from those; ``--check`` only says whether it is up to date. results/kodak_bdrate.csv takes the BD-rates
of all pairs. ``scripts/results.sh`` makes the results themselves anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from live.command import Parser, run
from live.errors import InputError
from live.files import write_atomic

from . import aims, clip_figures, results, tables
from .bdrate import at_rate, bd_rate, in_percent, matrix, matrix_markdown, rate_at
from .curves import rd_plot
from .learning import learning_plot
from .ours import REFINED_NAME, codec_of
from .results import METRICS, REFERENCES

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS, ASSETS = ROOT / "README.md", ROOT / "results", ROOT / "assets"
POINTS, ROUND_TRIP = RESULTS / "kodak.csv", RESULTS / "kodak_autoencoder.json"
MATRIX, OTHERS = RESULTS / "kodak_bdrate.csv", RESULTS / "published.csv"
PLOTS = {
    "original": ("psnr", "lpips_alex", "lpips_alex_shifted", "dists"),
    "autoencoder": ("psnr", "lpips_alex", "lpips_vgg", "dists"),
}
"""The panels of the figure of each reference; those that nothing was measured for are left out."""
BEGIN, END = "<!-- figures: python -m testing.figures -->\n", "<!-- end of figures -->"
VIDEO_BEGIN, VIDEO_END = "<!-- video figures: python -m testing.figures -->\n", "<!-- end of video figures -->"
OURS, LOWEST = "live_plus", "glc"
AT_BPP = (0.035, 0.1, 0.3, 0.5)
AT_LPIPS = (0.3, 0.2, 0.1)
TIMED_BPP = 0.3
PUBLISHED = (
    ("SD-VAE (sd-vae-ft-mse), published", 26.65, 0.073, 0.042),
    ("TAEF2, measured on 8 photos", 29.89, 0.038, None),
)
"""Round trips of others against the original Kodak photos, for scale: PSNR (dB), LPIPS-Alex, DISTS."""


def round_trip_table(summary: dict[str, object]) -> str:
    """The autoencoder alone, ours beside published ones, as Markdown."""
    rows = [("compact (ours)", summary["psnr"], summary["lpips_alex"], summary["dists"]), *PUBLISHED]
    lines = ["| autoencoder, round trip | PSNR (dB) | LPIPS-Alex | DISTS |", "|---|---:|---:|---:|"]
    for name, psnr, lpips, dists in rows:
        lines.append(f"| {name} | {psnr:.2f} | {lpips:.3f} | {'–' if dists is None else f'{dists:.3f}'} |")
    times = f"Alone it encodes 768x512 in {summary['encode_s']:.2f} s and decodes it in {summary['decode_s']:.2f} s on "
    threads = "1 thread" if summary["threads"] == 1 else f"{summary['threads']} threads"
    return "\n".join(lines) + f"\n\n{times}{threads} (medians)."


def rate_table(means: pd.DataFrame) -> str:
    """Every codec's LPIPS-Alex, from the first pixel and from others, DISTS and PSNR at fixed rates, as Markdown."""
    shown = [name for name in ("lpips_alex", "lpips_alex_shifted", "dists", "psnr") if means[name].notna().any()]
    rates = " / ".join(f"{bpp:g}" for bpp in AT_BPP)
    heads = [f"{METRICS[name].label} at {rates} bpp" for name in shown]
    lines = [f"| codec | {' | '.join(heads)} | container |", "|---|" + "---|" * len(shown) + "---:|"]
    for codec, curve in means.groupby("codec", sort=False):
        peer = codec_of(str(codec))
        values = ([at_rate(curve, name, bpp) for bpp in AT_BPP] for name in shown)
        cells = (_cells(row, 2 if name == "psnr" else 3) for name, row in zip(shown, values, strict=True))
        lines.append(f"| {peer.label} | {' | '.join(cells)} | {peer.container} B |")
    return "\n".join(lines)


def size_table(means: pd.DataFrame, pixels: float) -> str:
    """Kilobytes a photo of so many pixels at equal LPIPS-Alex, and the BD-rate of ours, whole files and less what of them codes
    no picture, as Markdown."""
    heads = [f"kB at LPIPS-Alex {value:g}" for value in AT_LPIPS] + [
        "BD-rate of ours, LPIPS-Alex",
        "without containers",
    ]
    lines = [f"| codec | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    ours = means[means["codec"] == OURS]
    for codec, curve in means.groupby("codec", sort=False):
        rates = [rate_at(curve, "lpips_alex", value) for value in AT_LPIPS]
        sizes = ["–" if rate is None else f"{rate * pixels / 8000:.1f}" for rate in rates]
        percent, overlap = bd_rate(curve, ours, "lpips_alex")
        bare = bd_rate(_bare(curve, str(codec), pixels), _bare(ours, OURS, pixels), "lpips_alex")[0]
        against = f"{in_percent(percent)} (overlap {overlap:.2f}) | {in_percent(bare)}"
        lines.append(f"| {codec_of(str(codec)).label} | {' | '.join(sizes)} | {' | ' if codec == OURS else against} |")
    return "\n".join(lines)


def _bare(curve: pd.DataFrame, codec: str, pixels: float) -> pd.DataFrame:
    """A codec's curve without the bytes of its container."""
    return curve.assign(bpp=curve["bpp"] - 8 * codec_of(codec).container / pixels)


def timed_alike(points: pd.DataFrame) -> pd.DataFrame:
    """The points of the photos that every codec was timed on."""
    timed = points[points["encode_s"].notna()]
    photos = set.intersection(*(set(rows["picture"]) for _, rows in timed.groupby("codec")))
    return timed[timed["picture"].isin(photos)]


def speed_table(points: pd.DataFrame, means: pd.DataFrame) -> str:
    """Median seconds a photo of each codec at its setting nearest to ``TIMED_BPP``, as Markdown."""
    lines = ["| codec | bpp | encode (s) | of it autoencoder | decode (s) | of it autoencoder |", "|---|" + "---:|" * 5]
    for codec, curve in means.groupby("codec", sort=False):
        chosen = curve.loc[(curve["bpp"] - TIMED_BPP).abs().idxmin()]
        rows = points[(points["codec"] == codec) & (points["setting"] == chosen["setting"])]
        sides = ("encode_s", "encode_autoencoder_s", "decode_s", "decode_autoencoder_s")
        cells = ("–" if pd.isna(value) else f"{value:.3f}" for value in (rows[side].median() for side in sides))
        lines.append(f"| {codec_of(str(codec)).label} | {chosen['bpp']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(values: list[float | None], digits: int) -> str:
    return " / ".join("–" if value is None else f"{value:.{digits}f}" for value in values)


def block() -> str:
    """The README's text between the marks, from the committed results."""
    measured = results.load(POINTS)
    points = results.select(measured, list(measured["codec"].unique()), "original")
    means = results.mean_per_setting(points)
    ours = means[means["codec"] == OURS]
    shown = [name for name in METRICS if ours[name].notna().any()]
    parts = [
        f"All {points['picture'].nunique()} Kodak photos, real files, header counted, the decoded 8-bit picture against "
        "the **original** photo. The container's bytes are counted in every rate (1000 B are 0.020 bpp here). "
        "A dash: out of the codec's range, or not measured. *Refined* files are made by `--refine 20`, a search by the encoder "
        "for what LPIPS and DISTS see, which gives some PSNR for it. *Shifted* is the mean of LPIPS-Alex over four other places "
        "than the first pixel to look from: AlexNet goes over a picture in steps of 4 px, and what learned from it, always from "
        "the same place, shows patterns that it does not see from there.",
        rate_table(means),
        "![PSNR, LPIPS and DISTS over bpp, against the original](assets/kodak_rd_original.png)",
        size_table(means, float((points["width"] * points["height"]).mean())),
        "What was aimed at, and what is reached (`docs/log.md` says what was tried):",
        aims.table(means, RESULTS),
    ]
    for reference in (name for name in REFERENCES if (measured["reference"] == name).any()):
        rows = matrix(measured, reference)
        table = matrix_markdown(rows[rows["test"] == OURS])
        parts += [
            f"BD-rate of {codec_of(OURS).label} {REFERENCES[reference]}, in brackets the overlap of the curves:",
            table,
        ]
        refined = rows[rows["test"] == REFINED_NAME.format(OURS)]
        if len(refined):
            parts += [f"The same of {codec_of(REFINED_NAME.format(OURS)).label}:", matrix_markdown(refined)]
        if reference == "autoencoder":
            parts += [f"![The same {REFERENCES[reference]}](assets/kodak_rd_autoencoder.png)"]
    ours = means[means["codec"].isin([name for base in (OURS, LOWEST) for name in (base, REFINED_NAME.format(base))])]
    timed = timed_alike(points)
    parts += ["Our qualities:", results.markdown(ours, shown)]
    parts += [
        f"Seconds a photo at the setting nearest to {TIMED_BPP:g} bpp (medians over {timed['picture'].nunique()} photos, on one "
        "core; VVC and JPEG XL are programs, started for each file; refined files were timed beside another search, and "
        "are decoded by what decodes all of their codec):",
        speed_table(timed, means),
        "The ceiling of any codec over a frozen autoencoder is its own round trip:",
        round_trip_table(json.loads(ROUND_TRIP.read_text())),
        *tables.texts(RESULTS),
    ]
    return "\n\n".join(parts) + "\n"


def plots() -> list[Path]:
    """Draw the figure of each reference as PNG and SVG, and the curves of training; returns their paths."""
    points, published, made = results.load(POINTS), results.load_published(OTHERS), []
    for reference, metrics in PLOTS.items():
        here = points[points["reference"] == reference]
        shown = [name for name in metrics if here[name].notna().any()]
        for suffix in (".png", ".svg") if shown else ():
            made.append(ASSETS / f"kodak_rd_{reference}{suffix}")
            rd_plot(points, shown, made[-1], reference=reference, published=published)
    for table in sorted(RESULTS.glob("learning_*.csv")):
        made.append(ASSETS / f"{table.stem}.png")
        learning_plot(pd.read_csv(table), made[-1])
    return made


def replaced(text: str) -> str:
    """The README with the blocks between its marks made anew; InputError when the marks are not there."""
    text = _between(text, BEGIN, END, block())
    return (
        _between(text, VIDEO_BEGIN, VIDEO_END, clip_figures.block(RESULTS)) if clip_figures.measured(RESULTS) else text
    )


def _between(text: str, begin: str, end: str, fresh: str) -> str:
    if begin not in text or end not in text:
        raise InputError("README.md lacks the marks between which the figures go")
    before, rest = text.split(begin, 1)
    return before + begin + fresh + end + rest.split(end, 1)[1]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code, 1 when ``--check`` finds the README out of date."""
    parser = Parser(prog="python -m testing.figures", description="Rebuild the README's figures from results/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the README is out of date")
    args = parser.parse_args(argv)
    text = README.read_text()
    fresh = replaced(text)
    if args.check:
        print("README.md is up to date" if fresh == text else "README.md is out of date: run python -m testing.figures")
        return int(fresh != text)
    measured = results.load(POINTS)
    rates = pd.concat([matrix(measured, name) for name in REFERENCES if (measured["reference"] == name).any()])
    write_atomic(MATRIX, rates.to_csv(index=False, float_format="%.4f").encode())
    write_atomic(README, fresh.encode())
    video = clip_figures.plots(RESULTS, ASSETS) if clip_figures.measured(RESULTS) else []
    print(*plots(), *video, MATRIX, README, sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
