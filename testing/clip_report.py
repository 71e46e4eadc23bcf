"""``python -m testing.clip_report --out OUT --data DIR``: one HTML file to look at, from what ``testing.clips`` left in OUT.

Curves, BD-rates, and a viewer of frames: the original, ours and every peer at its setting of nearest rate, in step with one
another through time, two at a time with a divider between them. Self-contained: it opens from disk, offline.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from tqdm import tqdm

from live.command import Parser, run
from live.errors import InputError
from live.files import write_atomic

from .bdrate import in_percent
from .clip_bdrate import clip_bd_rates, mean_bd_rate
from .clip_codecs import clip_codec_of, clip_label_of
from .clip_figures import SHOWN_BPP, nearest
from .clip_results import CLIP_METRICS, CLIPS, FRAMES, load_clips, load_frames, require_codecs
from .clip_scoring import digits_of, label_of
from .clips import coded_clip, frames_of, opened
from .curves import BOLD, colours_of
from .report import SHOWN_QUALITY, data_uri, filled
from .results import METRICS, of_dataset

OVER_TIME = ("psnr", "lpips_alex", "dists", "flicker", "bytes")


def sources(frames: Iterator[Image.Image], step: int, label: str) -> list[str]:
    """Each ``step``-th frame as a data URI."""
    return [data_uri(frame) for frame in tqdm(islice(frames, 0, None, step), desc=label, unit="frame", leave=False)]


def view(
    rows: pd.DataFrame, frames: pd.DataFrame, clip: str, out: Path, data: Path, bpp: float, step: int
) -> dict[str, Any]:
    """A clip: the original and every codec at its setting nearest to ``bpp``, each ``step``-th frame, figures of all."""
    chosen = nearest(rows, clip, bpp)
    source = opened(data / clip, int(chosen["frames"].iloc[0]))
    size = f"{source.properties.width} x {source.properties.height}"
    original = sources(frames_of(source), step, f"{clip}, original")
    images = [{"codec": "original", "label": "original", "caption": f"original, {size}", "sources": original}]
    for row in chosen.itertuples(index=False):
        label, names = clip_label_of(row.codec), (*CLIP_METRICS, "flicker")
        known = (name for name in names if not pd.isna(getattr(row, name)))
        values = (f"{label_of(name)} {getattr(row, name):.{digits_of(name)}f}" for name in known)
        decoded = clip_codec_of(row.codec).decode(coded_clip(out, row.codec, clip, row.setting))
        mine = frames[(frames["clip"] == clip) & (frames["codec"] == row.codec) & (frames["setting"] == row.setting)]
        figures = mine.sort_values("frame")[list(OVER_TIME)].round(4).to_json(orient="columns")
        images.append({
            "codec": row.codec,
            "label": label,
            "caption": f"{label}, setting {row.setting:g}: {row.bytes:.0f} bytes, {row.bpp:.4f} bpp, {', '.join(values)}",
            "sources": sources(decoded, step, f"{clip}, {label}"),
            "figures": {name: list(column.values()) for name, column in json.loads(figures).items()},
        })  # fmt: skip
    numbers = list(range(0, source.count, step))
    rate = float(source.properties.rate) / step
    return {"clip": clip, "count": source.count, "numbers": numbers, "rate": rate, "images": images}


def check(rows: pd.DataFrame, clips: list[str], out: Path, data: Path, bpp: float) -> None:
    """InputError before anything is made when a clip is not in ``data``, or a coded file no longer in ``out``."""
    for clip in clips:
        if not (data / clip).is_file():
            raise InputError(f"{data} does not hold {clip}; give the folder that was evaluated")
        for row in nearest(rows, clip, bpp).itertuples(index=False):
            if not (path := coded_clip(out, row.codec, clip, row.setting)).exists():
                raise InputError(f"{path} is gone; the report needs the files that testing.clips left in its folder")


def bd_table(rows: pd.DataFrame, ours: str) -> str:
    """HTML: one row a peer, one column a metric, the mean BD-rate of ours over it."""
    head = "".join(f"<th>{html.escape(METRICS[name].label)}</th>" for name in CLIP_METRICS)
    lines = [f"<tr><th>peer</th>{head}</tr>"]
    for codec in (name for name in rows["codec"].unique() if name != ours):
        cells = []
        for name in CLIP_METRICS:
            found = clip_bd_rates(rows, codec, ours, name)
            mean, count = mean_bd_rate(found)
            cells.append(f"<td>{in_percent(mean)} ({count} of {len(found)})</td>")
        lines.append(f"<tr><td>{html.escape(clip_label_of(codec))}</td>{''.join(cells)}</tr>")
    return f"<table class='bd' id='bd'>{''.join(lines)}</table>"


def page(rows: pd.DataFrame, ours: str, views: list[dict[str, Any]], bpp: float, step: int) -> str:
    """The whole HTML file for the rows of one dataset."""
    codecs = list(rows["codec"].unique())
    colours = colours_of(codecs)
    columns = ["clip", "codec", "setting", "bytes", "bpp", *CLIP_METRICS, "flicker"]
    figures = {name: label_of(name) for name in (*CLIP_METRICS, "flicker")}
    data = {
        "points": json.loads(rows[columns].round(5).to_json(orient="records")),
        "codecs": [
            {"name": c, "label": clip_label_of(c), "colour": colours[c], "ours": c in BOLD} for c in codecs
        ],
        "metrics": {name: {"label": label, "higher": name == "psnr"} for name, label in figures.items()},
        "figures": {name: "bytes" if name == "bytes" else label_of(name) for name in OVER_TIME},
        "views": views, "ours": ours,
    }  # fmt: skip
    fields = {
        "TITLE": html.escape(f"{', '.join(rows['dataset'].unique())}, {rows['clip'].nunique()} clips"),
        "EVERY": f"{rows['every'].iloc[0]}",
        "OURS_LABEL": html.escape(clip_label_of(ours)),
        "BD_TABLE": bd_table(rows, ours),
        "BPP": f"{bpp:g}",
        "STEP": str(step),
        "SHOWN_QUALITY": str(SHOWN_QUALITY),
    }
    return filled("clip_report.html", fields, data)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.clip_report", description="One HTML file of what testing.clips measured.")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder of testing.clips")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the clips that were evaluated")
    parser.add_argument("--ours", default="glc_video", metavar="CODEC", help="the codec in question; %(default)s")
    parser.add_argument("--dataset", metavar="NAME", help="needed when the results hold several")
    parser.add_argument("--bpp", type=float, default=SHOWN_BPP, metavar="R", help="rate of the frames; %(default)s")
    parser.add_argument("--step", type=int, default=2, metavar="N", help="show each N-th frame; %(default)s")
    args = parser.parse_args(argv)
    if args.step < 1:
        raise InputError("--step must be at least 1")
    if not 0 < args.bpp < 24:
        raise InputError("--bpp must be between 0 and 24")
    rows = of_dataset(load_clips(args.out / CLIPS), args.dataset)
    frames = load_frames(args.out / FRAMES)
    frames = frames[frames["dataset"] == rows["dataset"].iloc[0]]
    require_codecs(rows, [args.ours])
    clips = list(rows["clip"].unique())
    check(rows, clips, args.out, args.data, args.bpp)
    views = [view(rows, frames, clip, args.out, args.data, args.bpp, args.step) for clip in clips]
    path = args.out / "clip_report.html"
    write_atomic(path, page(rows, args.ours, views, args.bpp, args.step).encode())
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
