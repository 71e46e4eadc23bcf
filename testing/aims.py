"""What was aimed at, on Kodak and in speed, and where the committed results stand, as the README's tables.

What falls short is said too.
"""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import results
from .bdrate import at_rate, bd_rate, bits_between, curves_of, in_percent, rate_at
from .ours import REFINED_NAME
from .results import METRICS, measured, select

AT_A_RATE = (
    ("live_plus", "lpips_alex", 0.10, 0.22),
    ("live_plus", "lpips_alex", 0.30, 0.10),
    ("live_plus", "dists", 0.10, 0.16),
    ("live_plus", "psnr", 0.30, 27.0),
    ("glc", "dists", 0.035, 0.20),
    ("glc", "lpips_alex", 0.035, 0.36),
)
"""Codec, metric, bpp, and what the metric should be there at least as good as."""
OVER_ANCHORS = (
    ("kodak.csv", "live_plus", "lpips_alex", "original", "vvc", -45.0),
    ("kodak.csv", "live_plus", "lpips_alex", "original", "heif", -50.0),
    ("kodak.csv", "live_plus", "lpips_alex", "original", "webp", -55.0),
    ("kodak.csv", "live_plus", "psnr", "autoencoder", "live_paper", -35.0),
    ("glc_ablation.csv", "glc_stage2", "dists", "original", "glc_factorised", -5.0),
)
"""Results, tested codec, metric, reference, anchor, and the BD-rate that it should be at most, in percent."""
FASTER_THAN_VVC = 5.0
"""How many times as long as ours VVenC's preset medium should take to encode, at least."""
SHARE_OF_VVC, BETTER_AT = 0.5, 0.05
"""GLC's bytes over VVC's at equal DISTS, at most; and the bpp at which GLC should be better than LIVE+."""


def table(means: pd.DataFrame, folder: Path) -> str:
    """Aim by aim as Markdown. means: of the settings against the original; folder: of the results."""
    curves = {str(codec): curve for codec, curve in means.groupby("codec", sort=False)}

    def ways(codec: str) -> list[str]:
        """The codec, and as its files are refined where that was measured."""
        return [codec, *(name for name in (REFINED_NAME.format(codec),) if name in curves)]

    rows = [
        _at_a_rate(curves[way], way, metric, bpp, aim) for codec, metric, bpp, aim in AT_A_RATE for way in ways(codec)
    ]
    for name, codec, metric, reference, *over in OVER_ANCHORS:
        if (folder / name).is_file():
            against_originals = ways(codec) if reference == "original" else [codec]
            rows += [_over_anchor(folder, name, way, metric, reference, *over) for way in against_originals]
    rows += [_bytes_of_vvc(curves[way], way, curves["vvc"]) for way in ways("glc")]
    rows += [_better(curves["glc"], curves["live_plus"])]
    return _markdown("on Kodak", rows)


def speed_table(facts: dict[str, Any]) -> str:
    """Aim by aim as Markdown, of what was measured. facts: ``testing.speed``'s."""
    there, back, stage = facts["encoding_ms"], facts["decoding_ms"], "entropy_coding_and_container"
    latents = there["latents_to_file"], back["file_to_latents"]
    floats = [facts["compressai_float_ms"]["our networks"][way] for way in ("latents_to_file", "file_to_latents")]
    rows = [
        _within("entropy coding and container, each way", 25, there[stage], back[stage]),
        _within("latents to file, and back", 60, *latents),
        (
            "the same, against CompressAI's path in floats",
            f"≤ {floats[0]:.0f} and {floats[1]:.0f} ms",
            f"{latents[0]:.0f} and {latents[1]:.0f} ms",
            _word(latents[0] <= floats[0] and latents[1] <= floats[1]),
        ),
        _within("photo to file", 400, there["photo_to_file"]),
        _within("file to photo", 500, back["file_to_photo"]),
        _within("`live info`", 500, facts["start_up_ms"]["live info"]),
    ]
    if "vvc_medium" in facts["peers_ms"]:
        times = facts["peers_ms"]["vvc_medium"]["photo_to_file"] / there["photo_to_file"]
        what = f"VVenC medium's encoding on one thread over photo to file on {facts['threads']}"
        rows.append((what, f"≥ {FASTER_THAN_VVC:g} times", f"{times:.1f} times", _word(times >= FASTER_THAN_VVC)))
    return _markdown("speed", rows)


def _within(what: str, most: int, *measured: float) -> tuple[str, ...]:
    """All in milliseconds."""
    return (
        what,
        f"≤ {most} ms",
        " and ".join(f"{value:.0f}" for value in measured) + " ms",
        _word(max(measured) <= most),
    )


def _markdown(title: str, rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {title} | aim | measured | reached |", "|---|---:|---:|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def _at_a_rate(curve: pd.DataFrame, codec: str, metric: str, bpp: float, aim: float) -> tuple[str, ...]:
    value, higher = at_rate(curve, metric, bpp), METRICS[metric].higher_is_better
    reached = value is not None and (value >= aim if higher else value <= aim)
    digits = 2 if metric == "psnr" else 3
    return (
        f"`{codec}`: {METRICS[metric].label} at {bpp:g} bpp",
        f"{'≥' if higher else '≤'} {aim:g}",
        "out of range" if value is None else f"{value:.{digits}f}",
        _word(reached),
    )


def _over_anchor(
    folder: Path, name: str, codec: str, metric: str, reference: str, anchor: str, aim: float
) -> tuple[str, ...]:
    points = select(results.load(folder / name), [anchor, codec], reference)
    curves = curves_of(measured(points, metric), anchor, codec)
    percent, overlap = bd_rate(*curves, metric)
    stated = in_percent(percent)
    if percent is None:
        stated += f" (overlap {overlap:.2f})"
        if between := bits_between(*curves, metric):
            stated += f"; {between[1]:.2f} of its bits at {between[0]:.2f}"
    against = (
        f", against the autoencoder's output, over `{anchor}`" if reference == "autoencoder" else f" over `{anchor}`"
    )
    what = f"`{codec}`: BD-rate in {METRICS[metric].label}{against}"
    return what, f"≤ {aim:g} %", stated, "N/A" if percent is None else _word(percent <= aim)


def _bytes_of_vvc(glc: pd.DataFrame, codec: str, vvc: pd.DataFrame) -> tuple[str, ...]:
    """At each of GLC's settings, where VVC's curve reaches its DISTS."""
    shares = {}
    for row in glc.sort_values("bpp").itertuples():
        rate = rate_at(vvc, "dists", row.dists)
        if rate is not None:
            shares[row.bpp] = row.bpp / rate
    measured = ", ".join(f"{share:.2f} at {bpp:.3f} bpp" for bpp, share in shares.items())
    met = [share <= SHARE_OF_VVC for share in shares.values()]
    word = "N/A" if not met else "yes" if all(met) else f"at {sum(met)} of {len(met)}" if any(met) else "no"
    return f"`{codec}`: bytes over `vvc`'s at equal DISTS", f"≤ {SHARE_OF_VVC:g}", measured or "out of range", word


def _better(glc: pd.DataFrame, plus: pd.DataFrame) -> tuple[str, ...]:
    values = {name: (at_rate(glc, name, BETTER_AT), at_rate(plus, name, BETTER_AT)) for name in ("lpips_alex", "dists")}
    known = all(value is not None for pair in values.values() for value in pair)
    measured = ", ".join(
        f"{METRICS[name].label} {ours:.3f} against {other:.3f}" for name, (ours, other) in values.items() if known
    )
    reached = _word(all(operator.lt(*pair) for pair in values.values())) if known else "N/A"
    return (
        f"`glc` against `live_plus` at {BETTER_AT:g} bpp",
        "better in both",
        measured if known else "out of range",
        reached,
    )


def _word(reached: bool | np.bool_) -> str:
    """What stands in the last column."""
    return "yes" if reached else "no"
