"""What is shown of measured clips: curves and plots over the frames of each, and the README's section on them.

python -m testing.clip_figures --results OUT --out DIR      the figures; OUT: a folder of testing.clips
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from live.command import Parser, run
from live.errors import InputError
from live.files import make_folder

from .bdrate import at_rate, in_percent
from .clip_bdrate import bd_markdown, clip_bd_rates, mean_bd_rate
from .clip_codecs import CLIP_OURS, clip_label_of
from .clip_results import CLIP_METRICS, CLIPS, FRAMES, curve, load_clips, load_frames
from .clip_scoring import digits_of, label_of
from .curves import BOLD, STYLE, colours_of, draw, save_figure
from .results import METRICS, of_dataset

AT_BPP = (0.01, 0.02, 0.05)
SHOWN_BPP = 0.03
"""At the settings nearest to it codecs are shown frame by frame, and timed."""
PANELS = ("bytes", "psnr", "lpips_alex", "dists")
GOALS = (
    ("glc_video", "glc", "dists", None, -50),
    ("glc_video", "x265_ld", "dists", (0.01, 0.05), -40),
    ("live_video", "live_plus", "lpips_alex", None, -40),
)
"""BD-rates that are stated in words: the tested codec, over which, at equal what, at which bpp of the latter, and the aim."""


OVER_IMAGES = (("glc_video", "glc"), ("live_video", "live_plus"))
"""Codecs that predict frames, and what codes their intra frames."""


def measured(folder: Path) -> bool:
    """Whether a folder holds results of clips."""
    return (folder / CLIPS).is_file() and (folder / FRAMES).is_file()


def nearest(rows: pd.DataFrame, clip: str, bpp: float) -> pd.DataFrame:
    """Of each codec on a clip the row nearest to a rate, as a ratio."""
    here = rows[rows["clip"] == clip]
    apart = np.log(here["bpp"] / bpp).abs()
    return here.loc[apart.groupby(here["codec"], sort=False).idxmin()]


def frames_plot(rows: pd.DataFrame, frames: pd.DataFrame, clip: str, path: Path) -> None:
    """Bytes and metrics over the frames of a clip, each codec at its setting nearest to ``SHOWN_BPP``."""
    chosen = nearest(rows, clip, SHOWN_BPP)
    colours = colours_of(list(rows["codec"].unique()))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(PANELS), figsize=(3.7 * len(PANELS), 3.8))
        figure.suptitle(f"{clip}, frame by frame, each codec at its setting nearest to {SHOWN_BPP:g} bpp", fontsize=9)
        for row in chosen.itertuples(index=False):
            mine = frames[
                (frames["clip"] == clip) & (frames["codec"] == row.codec) & (frames["setting"] == row.setting)
            ]
            label = f"{clip_label_of(row.codec)}, {row.bpp:.3f} bpp"
            for axis, panel in zip(axes, PANELS, strict=True):
                _line(axis, mine.sort_values("frame"), panel, colours[row.codec], label, row.codec in BOLD)
        for axis, panel in zip(axes, PANELS, strict=True):
            axis.set_xlabel("frame")
            axis.set_ylabel("bytes" if panel == "bytes" else METRICS[panel].label)
        axes[0].set_yscale("log")
        figure.legend(*axes[1].get_legend_handles_labels(), loc="lower center", ncol=4, fontsize=7.5, frameon=False)
        figure.tight_layout(rect=(0, 0.11, 1, 1))
        save_figure(figure, path)


def _line(axis: Axes, frames: pd.DataFrame, panel: str, colour: str, label: str, ours: bool) -> None:
    known = frames.dropna(subset=[panel])
    marker = "o" if len(known) < len(frames) else None
    width = 1.8 if ours else 1.0
    axis.plot(known["frame"], known[panel], color=colour, label=label, linewidth=width, marker=marker, markersize=2.5)


def plots(folder: Path, out: Path) -> list[Path]:
    """Two figures of each clip in a folder of results: rate and distortion, and frame by frame; returns their paths.

    A peer that was measured with low delay, as ours are, is drawn so alone; its random access stands in the tables.
    """
    rows, frames, made = of_dataset(load_clips(folder / CLIPS)), of_dataset(load_frames(folder / FRAMES)), []
    low_delay = {codec.removesuffix("_ld") for codec in rows["codec"].unique() if codec.endswith("_ld")}
    rows = rows[~rows["codec"].isin([f"{name}_ra" for name in low_delay])]
    for clip in rows["clip"].unique():
        stem = Path(clip).stem
        here = pd.concat([curve(rows, clip, codec) for codec in rows["codec"].unique()])
        first = here.iloc[0]
        title = f"{clip}, {first.width} x {first.height}, {first.frames} frames, one file each"
        made.append(out / f"video_rd_{stem}.png")
        draw(here, list(reversed(CLIP_METRICS)), made[-1], title, name_of=clip_label_of)
        made.append(out / f"video_frames_{stem}.png")
        frames_plot(rows, frames, clip, made[-1])
    return made


def rate_table(rows: pd.DataFrame, clip: str) -> str:
    """Every codec's figures on a clip at fixed rates, as Markdown."""
    names = [*reversed(CLIP_METRICS), "flicker"]
    rates = " / ".join(f"{bpp:g}" for bpp in AT_BPP)
    heads = [f"{label_of(name)} at {rates} bpp" for name in names]
    lines = [f"| {clip} | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for codec in rows.loc[rows["clip"] == clip, "codec"].unique():
        mine = curve(rows, clip, codec)
        cells = (" / ".join(_number(at_rate(mine, name, bpp), digits_of(name)) for bpp in AT_BPP) for name in names)
        lines.append(f"| {clip_label_of(codec)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_table(rows: pd.DataFrame) -> str:
    """Frames a second of each codec at its setting nearest to ``SHOWN_BPP`` on each clip, as Markdown."""
    clips = list(rows["clip"].unique())
    heads = (f"{clip}: encoded / decoded" for clip in clips)
    lines = [f"| codec | {' | '.join(heads)} |", "|---|" + "---|" * len(clips)]
    chosen = pd.concat([nearest(rows, clip, SHOWN_BPP) for clip in clips]).set_index(["codec", "clip"])
    for codec in rows["codec"].unique():
        cells = (_speeds(chosen.loc[(codec, clip)]) if (codec, clip) in chosen.index else "–" for clip in clips)
        lines.append(f"| {clip_label_of(codec)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _speeds(row: pd.Series) -> str:
    return f"{row.frames / row.encode_s:.2f} / {row.fps:.2f}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def goal(rows: pd.DataFrame, test: str, anchor: str, metric: str, rates: tuple[float, float] | None, aim: float) -> str:
    """A BD-rate in words, in percent: the mean, the aim, and each clip's. rates: in bpp, see ``clip_bd_rates``."""
    found = clip_bd_rates(rows, anchor, test, metric, rates)
    mean, _ = mean_bd_rate(found)
    where = "" if rates is None else f", at the qualities that the latter has at {rates[0]:g} to {rates[1]:g} bpp"
    each = ", ".join(
        f"{clip} {in_percent(percent)} (overlap {overlap:.3f})" for clip, (percent, overlap) in found.items()
    )
    what = f"{clip_label_of(test)} over {clip_label_of(anchor)}, {METRICS[metric].label}{where}"
    return f"- {what}: **{in_percent(mean)}** (aim: {aim:g} %); {each}."


def drift_table(frames: pd.DataFrame) -> str:
    """What predicted frames lose on frame by frame coding at the same settings, by quarters of each clip, as Markdown; empty
    where neither was measured."""
    lines = ["| codec, clip | PSNR (dB) | DISTS |", "|---|---:|---:|"]
    for (video, pictures), clip in product(OVER_IMAGES, frames["clip"].unique()):
        quarters = [
            _quarters(frames[(frames["clip"] == clip) & (frames["codec"] == codec)]) for codec in (video, pictures)
        ]
        apart = (quarters[0] - quarters[1]).dropna().groupby("quarter").mean()
        if len(apart):
            cells = (
                " / ".join(f"{value:+.{digits}f}" for value in apart[name])
                for name, digits in (("psnr", 2), ("dists", 3))
            )
            lines.append(f"| {clip_label_of(video)}, {clip} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _quarters(frames: pd.DataFrame) -> pd.DataFrame:
    """PSNR and DISTS of each setting and quarter of a clip, means over the frames."""
    quarter = (frames["frame"] * 4 // (frames["frame"].max() + 1)).rename("quarter")
    return frames.groupby(["setting", quarter])[["psnr", "dists"]].mean()


def block(folder: Path) -> str:
    """The README's text on clips, from the results in a folder."""
    rows = load_clips(folder / CLIPS)
    codecs, first = list(rows["codec"].unique()), rows.iloc[0]
    parts = [
        f"The first {rows['frames'].max()} frames of {rows['clip'].nunique()} clips that nothing was trained on, one intra "
        f"frame, each a real file that was decoded again, 8-bit RGB against the original frames. PSNR is a mean over all "
        f"frames, LPIPS-Alex and DISTS over one in {first.every} and the last. Flicker is the mean absolute error of the "
        "frame differences in 8-bit levels: 0 where an error stands still. A dash: out of the codec's range.",
    ]
    for clip in rows["clip"].unique():
        stem = Path(clip).stem
        parts += [rate_table(rows, clip), f"![Rate and distortion of {clip}](assets/video_rd_{stem}.png)"]
        parts += [f"![{clip} frame by frame](assets/video_frames_{stem}.png)"]
    goals = [each for each in GOALS if each[0] in codecs and each[1] in codecs]
    if goals:
        parts += ["BD-rates, means over the clips:", "\n".join(goal(rows, *each) for each in goals)]
    for codec in (codec for codec in CLIP_OURS if codec in codecs and codec.endswith("_video")):
        others = [each for each in codecs if each != codec]
        parts += [f"BD-rate of {clip_label_of(codec)}, in brackets the clips where it applies:"]
        parts += [bd_markdown(rows, codec, others)]
    drift = drift_table(load_frames(folder / FRAMES))
    if drift:
        parts += [
            "How predicted frames hold out: PSNR and DISTS less those of the same qualities frame by frame, in each quarter of a "
            "clip, means over the qualities:",
            drift,
        ]
    timed = rows.dropna(subset=["encode_s", "decode_s"])  # seconds of a busy machine are better left out of a table
    if len(timed):
        parts += [f"Frames a second at about {SHOWN_BPP:g} bpp, one run (the peers as programs):", speed_table(timed)]
    return "\n\n".join(parts) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.clip_figures", description="Draw what testing.clips measured.")
    parser.add_argument("--results", type=Path, required=True, metavar="OUT", help="folder of testing.clips")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the figures")
    args = parser.parse_args(argv)
    if not measured(args.results):
        raise InputError(f"{args.results} does not hold {CLIPS} and {FRAMES}; make them with: python -m testing.clips")
    make_folder(args.out)
    print(*plots(args.results, args.out), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
