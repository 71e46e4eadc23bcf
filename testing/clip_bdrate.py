"""``python -m testing.clip_bdrate --clips clips.csv --metric dists --anchor x265_ld --test glc_video``: BD-rate over clips.

The BD-rate of each clip (see ``testing.bdrate``) and the mean over those where it applies, as is usual for video: every
clip counts once. --rates 0.01,0.05: at the qualities that the anchor has at these bpp; the overlap is then the part of
them that the tested codec reaches. Without --anchor: against every other codec, one row each and one column a metric.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator

from live.command import Parser, run
from live.errors import InputError

from .bdrate import bd_rate, in_percent, monotone
from .clip_codecs import clip_label_of
from .clip_results import CLIP_METRICS, curve, load_clips, require_codecs
from .results import METRICS, of_dataset

Rates = tuple[float, float]


def clip_bd_rates(
    rows: pd.DataFrame, anchor: str, test: str, metric: str, rates: Rates | None = None
) -> dict[str, tuple[float | None, float]]:
    """BD-rate of ``test`` over ``anchor`` in percent (None where it does not apply) and overlap, of each clip of both.

    rates: lowest and highest bpp of the anchor that count; None: all.
    """
    found = {}
    for clip in rows["clip"].unique():
        curves = [curve(rows, clip, codec) for codec in (anchor, test)]
        if any(each.empty for each in curves):
            continue
        if rates is not None:
            curves = within(*curves, metric, rates)
        found[clip] = bd_rate(*curves, metric)
    return found


def mean_bd_rate(found: dict[str, tuple[float | None, float]]) -> tuple[float | None, int]:
    """The mean over the clips that have a BD-rate, and how many those are; None where none has."""
    values = [percent for percent, _ in found.values() if percent is not None]
    return (float(np.mean(values)) if values else None), len(values)


def within(anchor: pd.DataFrame, test: pd.DataFrame, metric: str, rates: Rates) -> list[pd.DataFrame]:
    """Both curves at the qualities that the anchor has between two rates; what lies between settings by PCHIP."""
    bpp, values = monotone(anchor, metric)
    logs, values = _between(np.log(bpp), values, *np.log(rates))
    cut = [_frame(np.exp(logs), values, metric)]
    bpp, seen = monotone(test, metric)
    seen, logs = _between(seen, np.log(bpp), *((values[0], values[-1]) if len(values) else (0, 0)))
    return [*cut, _frame(np.exp(logs), seen, metric)]


def _between(x: np.ndarray, y: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The part of an ascending curve between two x, as far as it goes."""
    inside = x[(x >= low) & (x <= high)]
    ends = [end for end in (low, high) if len(x) and x[0] < end < x[-1]]
    points = np.unique(np.concatenate([inside, ends]))
    if len(x) < 2 or not len(points):
        return points[:0], points[:0]
    return points, PchipInterpolator(x, y)(points)


def _frame(bpp: np.ndarray, values: np.ndarray, metric: str) -> pd.DataFrame:
    return pd.DataFrame({"bpp": bpp, metric: values if METRICS[metric].higher_is_better else -values})


def bd_markdown(
    rows: pd.DataFrame,
    test: str,
    anchors: list[str],
    rates: Rates | None = None,
    metrics: Collection[str] = CLIP_METRICS,
) -> str:
    """BD-rates of one codec over others as Markdown: the mean over clips and, in brackets, of how many of them."""
    heads = [METRICS[name].label for name in metrics]
    lines = [f"| against | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for anchor in anchors:
        found = [clip_bd_rates(rows, anchor, test, name, rates) for name in metrics]
        lines.append(f"| {clip_label_of(anchor)} | {' | '.join(map(_cell, found))} |")
    return "\n".join(lines)


def _cell(found: dict[str, tuple[float | None, float]]) -> str:
    mean, count = mean_bd_rate(found)
    return f"{in_percent(mean)} ({count} of {len(found)})"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.clip_bdrate", description="BD-rate of codecs of clips, per clip and mean.")
    parser.add_argument("--clips", type=Path, required=True, metavar="CSV", help="clips.csv of testing.clips")
    parser.add_argument("--metric", choices=CLIP_METRICS, help="default: dists; in the table all")
    parser.add_argument("--anchor", metavar="CODEC", help="the codec that is compared with; default: a table of all")
    parser.add_argument("--test", required=True, metavar="CODEC", help="the codec in question")
    parser.add_argument("--rates", metavar="LOW,HIGH", help="bpp of the anchor; default: all")
    parser.add_argument("--dataset", metavar="NAME", help="needed when the results hold several")
    parser.add_argument("--json", action="store_true", help="one JSON object; needs --anchor")
    args = parser.parse_args(argv)
    rows, rates = of_dataset(load_clips(args.clips), args.dataset), _rates(args.rates)
    require_codecs(rows, [args.test, *([args.anchor] if args.anchor else [])])
    if args.anchor is None:
        if args.json:
            raise InputError("--json needs --anchor")
        anchors = [codec for codec in rows["codec"].unique() if codec != args.test]
        print(bd_markdown(rows, args.test, anchors, rates, [args.metric] if args.metric else CLIP_METRICS))
        return 0
    args.metric = args.metric or "dists"
    found = clip_bd_rates(rows, args.anchor, args.test, args.metric, rates)
    if not found:
        raise InputError(f"no clip was coded by both {args.anchor} and {args.test}")
    mean, count = mean_bd_rate(found)
    if args.json:
        clips = {clip: {"bd_rate": percent, "overlap": round(overlap, 4)} for clip, (percent, overlap) in found.items()}
        facts = {"metric": args.metric, "anchor": args.anchor, "test": args.test, "rates": rates}
        print(json.dumps({"bd_rate": mean, "clips": clips, **facts}))
        return 0
    print(f"BD-rate of {args.test} over {args.anchor} at equal {METRICS[args.metric].label}")
    for clip, (percent, overlap) in found.items():
        print(f"{clip}: {_shown(percent)}, overlap {overlap:.0%}")
    print(f"mean over {count} of {len(found)} clips: {_shown(mean)}")
    return 0


def _shown(percent: float | None) -> str:
    return in_percent(percent) + (" (the curves overlap too little)" if percent is None else "")


def _rates(text: str | None) -> Rates | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not 0 < low < high:
        raise InputError(f"--rates takes two bpp, the lower first, as in 0.01,0.05; not {text}")
    return low, high


if __name__ == "__main__":
    raise SystemExit(run(main))
