"""Figures: rate-distortion curves from the table of results, and pictures side by side.

python -m testing.curves --points points.csv --metrics psnr,lpips_alex,dists --out rd.svg [--reference autoencoder]
                         [--dataset NAME] [--published results/published.csv]
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, NullFormatter
from PIL import Image

from live.command import Parser, run
from live.errors import InputError
from live.files import check_output, write_atomic

from .ours import codec_of
from .results import METRICS, REFERENCES, load, load_published, mean_per_setting, names_of, of_dataset, select

COLOURS = {
    "live_plus": "#d1495b",
    "live_plus_refined": "#8f1d2c",
    "live_paper": "#e8a0a8",
    "glc": "#9c1f6b",
    "glc_refined": "#5b1140",
    "jpeg": "#7f7f7f",
    "jpeg444": "#b5b5b5",
    "webp": "#2e7fb8",
    "heif": "#e0a100",
    "avif": "#3a9d5d",
    "avif420": "#8fcaa3",
    "jxl": "#8c5fb0",
    "vvc": "#3b3b58",
    "vtm": "#7d7da8",
    "live_video": "#f28e2b",
    "glc_video": "#e05fb0",
    "x264_ld": "#7f7f7f",
    "x264_ra": "#b5b5b5",
    "x265_ld": "#2e7fb8",
    "x265_ra": "#8ab8da",
    "svtav1_ld": "#3a9d5d",
    "svtav1_ra": "#8fcaa3",
    "vvc_ld": "#3b3b58",
    "vvc_ra": "#7d7da8",
}
"""One colour a codec in every figure; codecs that are not named here take ``OTHERS`` in turn."""
PALETTE = 128
"""Colours of a PNG figure: those of the lines and how they fade into white."""
BOLD = ("live_plus", "live_plus_refined", "glc", "glc_refined", "live_video", "glc_video")
"""Codecs of ours, drawn wider; so are those that have no colour of their own."""
OTHERS = ("#d97ba6", "#59b3b3", "#a0722a", "#6b8e23")
STYLE = {
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "svg.hashsalt": "live",
}
_COORDINATE = re.compile(rb"(?<= )-?\d+\.\d{3,}(?=[ \n])")
"""Of a path in an SVG, as matplotlib writes them; those of a transform are in brackets."""
PUBLISHED_COLOURS = ("#b07d48", "#4f8f8f", "#9a6fb0", "#556b9e", "#8a8f3c")
"""Of the dashed curves, in order of appearance."""
FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
TICKS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
MOST_TICKS = 7
"""More rates than that run into each other; then powers of ten alone are named."""


def rd_plot(
    points: pd.DataFrame,
    metrics: list[str],
    path: Path,
    *,
    reference: str = "original",
    log_rate: bool = True,
    published: pd.DataFrame | None = None,
) -> None:
    """Draw one panel a metric over bpp: means per setting over the pictures, each curve labelled at its end.

    points: as ``results.load`` gives them, of one dataset; drawn is the mean over the pictures that every codec coded at
    all its settings. The reference is named in the title. published: others' figures, as ``results.load_published`` gives
    them, dashed. The format follows the suffix of ``path`` (.png, .pdf, .svg). InputError when there is nothing to draw.
    """
    if path.suffix not in FIGURE_SUFFIXES:
        raise InputError(f"no figure format is known for {path.name}; use one of {', '.join(FIGURE_SUFFIXES)}")
    codecs = list(points.loc[points["reference"] == reference, "codec"].unique())
    if not codecs:
        raise InputError(f"there are no points {REFERENCES[reference]} to draw")
    means = mean_per_setting(select(points, codecs, reference))
    for metric in metrics:
        if means[metric].isna().all():
            raise InputError(f"the results hold no {metric} of all these pictures; run testing.evaluate with it")
    pictures = int(means["pictures"].max())
    title = f"{means['dataset'].iloc[0]}, {pictures} picture{'s' * (pictures > 1)}, {REFERENCES[reference]}"
    if published is not None:
        published = published[published["reference"] == reference].dropna(subset=metrics, how="all")
        title += "" if published.empty else "; dashed: as published"
    draw(means, metrics, path, title, log_rate=log_rate, published=published)


def draw(
    means: pd.DataFrame,
    metrics: list[str],
    path: Path,
    title: str,
    *,
    log_rate: bool = True,
    published: pd.DataFrame | None = None,
    name_of: Callable[[str], str] | None = None,
) -> None:
    """One panel a metric, one curve a codec, whose rows (codec, bpp, the metrics) ascend in rate.

    name_of: how curves are labelled; None: ``label_of``. For the others see ``rd_plot``.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(metrics), figsize=(4.6 * len(metrics), 4.2), squeeze=False)
        figure.suptitle(title, fontsize=9)
        for axis, metric in zip(axes[0], metrics, strict=True):
            _panel(axis, means.dropna(subset=[metric]), metric, log_rate, name_of or label_of)
            if published is not None:
                _dashed(axis, published, metric)
        figure.tight_layout()
        for axis in axes[0]:
            for dashed in (False, True):  # those of the dashed curves stand further in, where these end
                _part_labels(axis, [text for text in axis.texts if (text.get_style() == "italic") == dashed])
        save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, the same bytes each time, and let go of it: PNGs in a palette, which is a third of their size, and paths of
    SVGs to a hundredth of a point, which is two thirds."""
    drawn, kind = io.BytesIO(), path.suffix.lstrip(".")
    figure.savefig(drawn, dpi=200, format=kind, metadata={"Date": None} if kind == "svg" else None)
    if kind == "png":
        picture = Image.open(drawn).convert("RGB").quantize(PALETTE, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        picture.save(drawn := io.BytesIO(), "png", optimize=True)
    data = drawn.getvalue()
    if kind == "svg":
        data = _COORDINATE.sub(lambda found: b"%.2f" % float(found[0]), data)
    write_atomic(path, data)
    plt.close(figure)


def _panel(axis: Axes, means: pd.DataFrame, metric: str, log_rate: bool, name_of: Callable[[str], str]) -> None:
    colours = colours_of(list(means["codec"].unique()))
    for codec, curve in means.groupby("codec", sort=False):
        ours = codec not in COLOURS or codec in BOLD
        width, marker, order = (2.0, 4.5, 3) if ours else (1.2, 3, 2)
        axis.plot(
            curve["bpp"], curve[metric], "o-", color=colours[codec], linewidth=width, markersize=marker, zorder=order
        )
        _name(axis, name_of(codec), curve, metric, color=colours[codec], weight="bold" if ours else "normal")
    low, high = means["bpp"].min(), means["bpp"].max()
    if log_rate:
        axis.set_xscale("log")
        axis.set_xlim(low / 1.15, high * (high / low) ** 0.5)  # room for the labels
        ticks = [tick for tick in TICKS if low / 1.15 <= tick <= high * 1.15]
        axis.set_xticks(
            ticks if len(ticks) <= MOST_TICKS else [tick for tick in ticks if math.log10(tick).is_integer()]
        )
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_xlim(0, high * 1.34)
    axis.set_xlabel("rate (bits per pixel, whole files)")
    direction = "higher" if METRICS[metric].higher_is_better else "lower"
    axis.set_ylabel(f"{METRICS[metric].label}, {direction} is better")


def _dashed(axis: Axes, published: pd.DataFrame, metric: str) -> None:
    colours = dict(zip(published["name"].unique(), cycle(PUBLISHED_COLOURS), strict=False))
    for name, curve in published.dropna(subset=[metric]).groupby("name", sort=False):
        colour = colours[name]
        axis.plot(curve["bpp"], curve[metric], "--", color=colour, linewidth=1.1, marker="x", markersize=3)
        _name(axis, str(name), curve, metric, color=colour, style="italic")


def _name(axis: Axes, label: str, curve: pd.DataFrame, metric: str, **style: str) -> None:
    """Write a curve's label beside its end."""
    end = (curve["bpp"].iloc[-1], curve[metric].iloc[-1])
    halo = [withStroke(linewidth=2.5, foreground="white")]
    axis.annotate(label, end, (5, 0), textcoords="offset points", va="center", fontsize=7.5, annotation_clip=False,
                  path_effects=halo, **style)  # fmt: skip


def colours_of(codecs: list[str]) -> dict[str, str]:
    """A colour for each codec, as #rrggbb."""
    others = cycle(OTHERS)
    return {codec: COLOURS.get(codec) or next(others) for codec in codecs}


def label_of(codec: str) -> str:
    """How figures call a codec: its label, or its name where it is a folder of checkpoints."""
    try:
        return codec_of(codec).label
    except InputError:
        return codec


def _part_labels(axis: Axes, labels: list[Text]) -> None:
    """Shift labels up or down until they stand apart: those that would touch become a stack around their mean height."""
    if not labels:
        return
    axis.figure.canvas.draw()
    boxes = {label: label.get_window_extent() for label in labels}
    pitch = max(box.height for box in boxes.values()) + 1
    heights = {label: (box.y0 + box.y1) / 2 for label, box in boxes.items()}
    stacks: list[list[Text]] = []

    def middle(stack: list[Text]) -> float:
        half, frame = len(stack) * pitch / 2, axis.get_window_extent()
        return min(max(sum(heights[label] for label in stack) / len(stack), frame.y0 + half), frame.y1 - half)

    for label in sorted(heights, key=heights.__getitem__):
        stacks.append([label])
        while len(stacks) > 1 and middle(stacks[-1]) - middle(stacks[-2]) < sum(map(len, stacks[-2:])) * pitch / 2:
            stacks[-2:] = [stacks[-2] + stacks[-1]]
    for stack in stacks:
        for place, label in enumerate(stack):
            height = middle(stack) + (place - (len(stack) - 1) / 2) * pitch
            label.set_position((5, (height - heights[label]) * 72 / axis.figure.dpi))


@dataclass(frozen=True)
class Panel:
    """One picture of a comparison, RGB, and the lines (two at most) that are written under it."""

    picture: Image.Image
    caption: str


def side_by_side(rows: list[list[Panel]], path: Path, crop: tuple[int, int] = (320, 256)) -> None:
    """Draw rows of panels: the same middle ``crop`` (width, height in px) of each picture of a row, pixel by pixel.

    The middle, so that no part is chosen for how it looks. InputError when there is nothing to draw.
    """
    if not rows or not rows[0]:
        raise InputError("there are no pictures to put side by side")
    width, gap, caption = 2.3, 0.05, 0.4  # inches
    columns, height = max(map(len, rows)), width * crop[1] / crop[0]
    size = (columns * (width + gap) + gap, len(rows) * (height + caption) + gap)
    figure = plt.figure(figsize=size)
    for line, row in enumerate(rows):
        for column, panel in enumerate(row):
            left, top = gap + column * (width + gap), size[1] - gap - line * (height + caption)
            box = (left / size[0], (top - height) / size[1], width / size[0], height / size[1])
            axis = figure.add_axes(box)
            axis.set_axis_off()
            axis.imshow(_middle(panel.picture, crop), interpolation="nearest")
            place = ((left + width / 2) / size[0], (top - height - 0.04) / size[1])
            figure.text(*place, panel.caption, ha="center", va="top", fontsize=7.5, linespacing=1.25)
    drawn, kind = io.BytesIO(), path.suffix.lstrip(".")
    figure.savefig(drawn, dpi=2 * crop[0] / width, format=kind, pil_kwargs={"quality": 90} if kind == "jpg" else None)
    write_atomic(path, drawn.getvalue())
    plt.close(figure)


def _middle(picture: Image.Image, crop: tuple[int, int]) -> Image.Image:
    width, height = (min(size, limit) for size, limit in zip(picture.size, crop, strict=True))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.curves", description="Draw rate-distortion curves from measured points.")
    parser.add_argument("--points", type=Path, required=True, metavar="CSV", help="results of testing.evaluate")
    parser.add_argument("--metrics", default="psnr,lpips_alex", metavar="A,B", help=f"of {', '.join(METRICS)}")
    parser.add_argument("--reference", choices=REFERENCES, default="original")
    parser.add_argument("--dataset", metavar="NAME", help="needed when the results hold several")
    parser.add_argument("--published", type=Path, metavar="CSV", help="others' figures, to be dashed")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="figure: .png, .svg or .pdf")
    args = parser.parse_args(argv)
    metrics = names_of(args.metrics, "metric", METRICS)
    check_output(args.out, force=True)
    published = load_published(args.published) if args.published else None
    points = of_dataset(load(args.points), args.dataset)
    rd_plot(points, metrics, args.out, reference=args.reference, published=published)
    print(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
