"""What decoded frames are worth against the original ones: PSNR of each, LPIPS and DISTS of some, flicker.

Flicker is the error of the frame differences: with e the decoded minus the original frame, the mean over pixels and
channels of |e(t) - e(t - 1)|, in 8-bit levels. 0 where an error stands still, however large it is; what shimmers, pops or
pumps over still content, and what lags behind motion, raises it. A clip's is the mean over its frames but the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .clip_results import CLIP_METRICS
from .results import METRICS
from .scoring import score


@dataclass(frozen=True)
class FrameScore:
    """A frame's figures; None: not measured (flicker of the first frame, LPIPS and DISTS between the chosen ones)."""

    psnr: float
    flicker: float | None
    lpips_alex: float | None = None
    dists: float | None = None


def score_frames(
    original: Iterator[Image.Image], decoded: Iterator[Image.Image], count: int, every: int
) -> Iterator[FrameScore]:
    """A score for each of ``count`` frames, of which two are in memory; networks look at each ``every``-th and the last."""
    before: np.ndarray | None = None
    for number, (true, seen) in enumerate(zip(original, decoded, strict=True)):
        chosen = number % every == 0 or number == count - 1
        figures = score(seen, true, list(CLIP_METRICS) if chosen else ["psnr"])
        error = np.asarray(seen, np.int16) - np.asarray(true, np.int16)
        flicker = None if before is None else float(np.abs(error - before).mean())
        before = error
        yield FrameScore(flicker=flicker, **figures)


def mean_of(scores: list[FrameScore], name: str) -> float | None:
    """The mean of a figure over the frames that have it; None where none has."""
    values = [getattr(score, name) for score in scores if getattr(score, name) is not None]
    return float(np.mean(values)) if values else None


def digits_of(name: str) -> int:
    """Digits behind the point in tables."""
    return 2 if name == "flicker" else METRICS[name].digits


def label_of(name: str) -> str:
    """How tables and figures call a figure."""
    return "flicker (levels)" if name == "flicker" else METRICS[name].label
