"""``python -m testing.bdrate --points points.csv --metric lpips_alex --anchor webp --test live_plus``: the BD-rate.

The mean difference in rate at equal quality between two curves (Bjontegaard, VCEG-M33), with PCHIP interpolation of
log rate over the metric by the ``bjontegaard`` package. Negative: the tested codec needs fewer bits. Without --anchor:
the tested codec against every other, one row a codec and one column a metric.
"""

from __future__ import annotations

import argparse
import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator

from live.command import Parser, run
from live.errors import InputError

from .ours import name_of
from .results import METRICS, REFERENCES, load, mean_per_setting, measured, of_dataset, select

SMALLEST_OVERLAP = 0.5


def bd_rate(anchor: pd.DataFrame, test: pd.DataFrame, metric: str) -> tuple[float | None, float]:
    """BD-rate in percent of ``test`` over ``anchor``, and the overlap of their ranges of the metric, 0 to 1.

    Curves: one row a setting with the columns bpp and ``metric``. The overlap is the range that both curves reach over
    the range that either does. None instead of a percentage where it is under one half, or a curve has less than two
    points left after those are dropped that cost more bits than another without being better.
    """
    (anchor_rates, anchor_values), (test_rates, test_values) = (monotone(frame, metric) for frame in (anchor, test))
    if min(len(anchor_rates), len(test_rates)) < 2:
        return None, 0.0
    joint = max(anchor_values[-1], test_values[-1]) - min(anchor_values[0], test_values[0])
    common = min(anchor_values[-1], test_values[-1]) - max(anchor_values[0], test_values[0])
    overlap = float(max(common, 0) / joint)
    if overlap < SMALLEST_OVERLAP:
        return None, overlap
    from bjontegaard import bd_rate as library

    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    return float(library(anchor_rates, anchor_values, test_rates, test_values, **options)), overlap


def monotone(frame: pd.DataFrame, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Rates and qualities (higher is better: distances are negated), both strictly ascending.

    Settings that cost more than another without being better are left out.
    """
    points = frame[["bpp", metric]].dropna().to_numpy(float)
    values = points[:, 1] if METRICS[metric].higher_is_better else -points[:, 1]
    order = np.lexsort((-values, points[:, 0]))  # of one rate the best comes first, the others are not better then
    points, values = points[order], values[order]
    best = np.maximum.accumulate(np.concatenate([[-np.inf], values]))[:-1]
    kept = (values > best) & np.isfinite(values)
    return points[kept, 0], values[kept]


def at_rate(means: pd.DataFrame, metric: str, bpp: float) -> float | None:
    """A codec's metric at a rate, by PCHIP over log bpp between its settings; None outside their range."""
    curve = means.dropna(subset=[metric]).sort_values("bpp").drop_duplicates("bpp")
    if len(curve) < 2 or not curve["bpp"].min() <= bpp <= curve["bpp"].max():
        return None
    return float(PchipInterpolator(np.log(curve["bpp"]), curve[metric])(np.log(bpp)))


def rate_at(means: pd.DataFrame, metric: str, value: float) -> float | None:
    """The bpp at which a codec reaches a value of a metric; None where none of its settings, or each of them, does."""
    rates, values = monotone(means, metric)
    wanted = value if METRICS[metric].higher_is_better else -value
    if len(rates) < 2 or not values[0] <= wanted <= values[-1]:
        return None
    return float(np.exp(PchipInterpolator(values, np.log(rates))(wanted)))


def in_percent(value: float | None) -> str:
    """A BD-rate in words, N/A where it does not apply."""
    return "N/A" if value is None or np.isnan(value) else f"{value:+.1f} %"


def bits_between(anchor: pd.DataFrame, test: pd.DataFrame, metric: str) -> tuple[float, float] | None:
    """For where two curves share too little for a BD-rate: the middle of what they share of the metric, in its units, and the bits
    of ``test`` over those of ``anchor`` there, a ratio. None where they share nothing."""
    ends = [monotone(frame, metric)[1] for frame in (anchor, test)]
    if not all(len(values) > 1 for values in ends):
        return None
    low, high = max(values[0] for values in ends), min(values[-1] for values in ends)
    if low > high:
        return None
    middle = (low + high) / 2 * (1 if METRICS[metric].higher_is_better else -1)
    rates = [rate_at(frame, metric, middle) for frame in (anchor, test)]
    return middle, rates[1] / rates[0]


def matrix(
    points: pd.DataFrame, reference: str = "original", dataset: str | None = None, only: str | None = None
) -> pd.DataFrame:
    """Every ordered pair of codecs at every metric that both have against a reference, one row each; ``only``: of one tested codec.

    Columns: reference, metric, anchor, test, bd_rate (None where it does not apply), overlap, pictures. Each pair is
    compared over the pictures that both coded, and the metric was measured of, at all their settings.
    """
    here = of_dataset(points[points["reference"] == reference], dataset)
    rows = []
    for anchor, test in permutations(here["codec"].unique(), 2):
        if only not in (None, test):
            continue
        pair = select(here, [anchor, test], reference)
        curves: dict[frozenset[str], list[pd.DataFrame]] = {}  # by pictures: mostly the same for all metrics
        for metric in METRICS:
            both = measured(pair, metric)
            if both["codec"].nunique() < 2:
                continue
            pictures = frozenset(both["picture"])
            if pictures not in curves:
                curves[pictures] = curves_of(both, anchor, test)
            percent, overlap = bd_rate(*curves[pictures], metric)
            rows.append((reference, metric, anchor, test, percent, round(overlap, 4), len(pictures)))
    return pd.DataFrame(rows, columns=["reference", "metric", "anchor", "test", "bd_rate", "overlap", "pictures"])


def curves_of(points: pd.DataFrame, *codecs: str) -> list[pd.DataFrame]:
    """Of each codec the means over the pictures."""
    means = mean_per_setting(points)
    return [means[means["codec"] == codec] for codec in codecs]


def matrix_markdown(rows: pd.DataFrame) -> str:
    """A matrix's rows of one tested codec and one reference as Markdown: BD-rate and, in brackets, the overlap."""
    metrics = [name for name in METRICS if (rows["metric"] == name).any()]
    lines = [f"| against | {' | '.join(METRICS[name].label for name in metrics)} |", "|---|" + "---:|" * len(metrics)]
    for anchor, row in rows.groupby("anchor", sort=False):
        by_metric = row.set_index("metric")
        cells = [cell(by_metric.loc[name]) if name in by_metric.index else "" for name in metrics]
        lines.append(f"| {anchor} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(row: pd.Series) -> str:
    """A row of ``matrix`` in words: BD-rate and, in brackets, the overlap."""
    return f"{in_percent(row['bd_rate'])} ({row['overlap']:.2f})"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.bdrate", description="BD-rate of a codec over another, or over all.")
    parser.add_argument("--points", type=Path, required=True, metavar="CSV", help="results of testing.evaluate")
    parser.add_argument("--metric", choices=METRICS, help="default: lpips_alex; in the table all")
    parser.add_argument("--anchor", metavar="CODEC", help="the codec that is compared with; default: a table of all")
    parser.add_argument("--test", required=True, metavar="CODEC", help="the codec in question")
    parser.add_argument("--reference", choices=REFERENCES, default="original")
    parser.add_argument("--dataset", metavar="NAME", help="needed when the results hold several")
    parser.add_argument("--json", action="store_true", help="one JSON object, or a list of them")
    args = parser.parse_args(argv)
    args.test, args.anchor = name_of(args.test), args.anchor and name_of(args.anchor)
    if args.anchor is None:
        points = load(args.points)
        select(points, [args.test], args.reference, args.dataset)  # refuses what has no points
        rows = matrix(points, args.reference, args.dataset, args.test)
        rows = rows[rows["metric"].isin([args.metric] if args.metric else list(METRICS))]
        if rows.empty:
            raise InputError(f"the results hold nothing to compare {args.test} with {REFERENCES[args.reference]}")
        print(rows.to_json(orient="records") if args.json else matrix_markdown(rows))
        return 0
    args.metric = args.metric or "lpips_alex"
    percent, overlap, pictures = compare(args)
    if args.json:
        facts = {"metric": args.metric, "reference": args.reference, "anchor": args.anchor, "test": args.test}
        print(json.dumps({"bd_rate": percent, "overlap": round(overlap, 4), "pictures": pictures, **facts}))
        return 0
    shown = in_percent(percent) + (" (the curves overlap too little)" if percent is None else "")
    print(f"BD-rate of {args.test} over {args.anchor} at equal {METRICS[args.metric].label}: {shown}")
    print(f"{REFERENCES[args.reference]}, {pictures} pictures, overlap of the ranges {overlap:.0%}")
    return 0


def compare(args: argparse.Namespace) -> tuple[float | None, float, int]:
    """BD-rate, overlap and number of pictures for the command's arguments."""
    points = select(load(args.points), [args.anchor, args.test], args.reference, args.dataset)
    both = measured(points, args.metric)
    for codec in (args.anchor, args.test):
        if codec not in set(both["codec"]):
            what = f"{args.metric} of {codec} at all settings of a picture"
            raise InputError(f"the results hold no {what}; measure it with: python -m testing.evaluate")
    percent, overlap = bd_rate(*curves_of(both, args.anchor, args.test), args.metric)
    return percent, overlap, both["picture"].nunique()


if __name__ == "__main__":
    raise SystemExit(run(main))
