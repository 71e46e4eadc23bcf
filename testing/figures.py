"""``python -m testing.figures``: what the README shows of the committed results: its tables and assets/kodak_rd.png.

The text between the README's two ``figures`` marks is written from results/, so no measurement of ours there is typed by
hand (``PUBLISHED`` holds others', for scale); ``--check`` only says whether it is up to date. ``scripts/results.sh`` makes
the results themselves anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from live.command import Parser, run
from live.errors import InputError
from live.files import write_atomic

from . import results
from .bdrate import bd_rate
from .curves import rd_plot
from .ours import codec_of

ROOT = Path(__file__).resolve().parent.parent
README, POINTS, ROUND_TRIP = (
    ROOT / "README.md",
    ROOT / "results" / "kodak.csv",
    ROOT / "results" / "kodak_autoencoder.json",
)
PLOT = ROOT / "assets" / "kodak_rd.png"
BEGIN, END = "<!-- figures: python -m testing.figures -->\n", "<!-- end of figures -->"
OURS = "live_plus"
AT_BPP = (0.1, 0.25, 0.5)
PUBLISHED = (
    ("SD-VAE (sd-vae-ft-mse), published", 26.65, 0.073, 0.042),
    ("TAEF2, measured on 8 photos", 29.89, 0.038, None),
)
"""Round trips of others against the original Kodak photos, for scale: PSNR (dB), LPIPS-Alex, DISTS."""


def at_rate(means: pd.DataFrame, metric: str, bpp: float) -> float | None:
    """A codec's metric at a rate, linear in log bpp between its two nearest settings; None outside its range."""
    curve = means.sort_values("bpp")
    if not curve["bpp"].min() <= bpp <= curve["bpp"].max():
        return None
    return float(np.interp(np.log(bpp), np.log(curve["bpp"]), curve[metric]))


def round_trip_table(summary: dict[str, object]) -> str:
    """The autoencoder alone, ours beside published ones, as Markdown."""
    rows = [("compact (ours)", summary["psnr"], summary["lpips_alex"], summary["dists"]), *PUBLISHED]
    lines = ["| autoencoder, round trip | PSNR (dB) | LPIPS-Alex | DISTS |", "|---|---:|---:|---:|"]
    for name, psnr, lpips, dists in rows:
        lines.append(f"| {name} | {psnr:.2f} | {lpips:.3f} | {'' if dists is None else f'{dists:.3f}'} |")
    times = f"Alone it encodes 768x512 in {summary['encode_s']:.2f} s and decodes it in {summary['decode_s']:.2f} s on "
    return "\n".join(lines) + f"\n\n{times}{summary['threads']} threads (medians)."


def rate_table(points: pd.DataFrame) -> str:
    """Every codec's LPIPS-Alex and PSNR at fixed rates, and the BD-rate of ours against it, as Markdown."""
    means = results.mean_per_setting(points)
    rates = [f"{bpp:g} bpp" for bpp in AT_BPP]
    lines = [
        f"| codec | LPIPS-Alex at {' / '.join(rates)} | PSNR at the same | BD-rate of ours, LPIPS-Alex | container |"
    ]
    lines.append("|---|---|---|---:|---:|")
    ours = means[means["codec"] == OURS]
    for codec, curve in means.groupby("codec", sort=False):
        lpips, psnr = ([at_rate(curve, metric, bpp) for bpp in AT_BPP] for metric in ("lpips_alex", "psnr"))
        rate, overlap = (None, 0.0) if codec == OURS else bd_rate(curve, ours, "lpips_alex")
        against = "" if codec == OURS else "N/A" if rate is None else f"{rate:.1f} %"
        against += "" if codec == OURS else f" (overlap {overlap:.2f})"
        peer = codec_of(str(codec))
        row = (peer.label, _cells(lpips, 3), _cells(psnr, 2), against, f"{peer.container} B")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _cells(values: list[float | None], digits: int) -> str:
    return " / ".join("–" if value is None else f"{value:.{digits}f}" for value in values)


def block() -> str:
    """The README's text between the marks, from the committed results."""
    measured = results.load(POINTS)
    points = results.select(measured, list(measured["codec"].unique()), "original")
    summary = json.loads(ROUND_TRIP.read_text())
    ours = results.mean_per_setting(points[points["codec"] == OURS])
    return (
        f"All {points['picture'].nunique()} Kodak photos, real files, header counted, the decoded 8-bit picture against the "
        f"**original** photo. The container's bytes are counted in every rate "
        f"(1000 B are 0.020 bpp here).\n\n{rate_table(points)}\n\n"
        f"![PSNR and LPIPS over bpp](assets/kodak_rd.png)\n\n"
        f"Our qualities:\n\n{results.markdown(ours, ['psnr', 'lpips_alex'])}\n\n"
        f"The ceiling of any codec over a frozen autoencoder is its own round trip:\n\n{round_trip_table(summary)}\n"
    )


def replaced(text: str) -> str:
    """The README with the block between its marks made anew; InputError when the marks are not there."""
    if BEGIN not in text or END not in text:
        raise InputError("README.md lacks the marks between which the figures go")
    before, rest = text.split(BEGIN, 1)
    return before + BEGIN + block() + END + rest.split(END, 1)[1]


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
    rd_plot(results.load(POINTS), ["psnr", "lpips_alex"], PLOT)
    write_atomic(README, fresh.encode())
    print(f"{README}\n{PLOT}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
