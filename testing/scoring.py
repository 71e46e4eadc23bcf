"""Metrics of a decoded picture against a reference, with what the networks see in a picture computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image

from live.media import to_tensor
from live.metrics import distortion

from .results import METRICS

if TYPE_CHECKING:
    from live.metrics.perceptual import DISTS, LPIPS, ShiftedLPIPS


class Seen:
    """A picture and, for each metric with a network, its features there: made at the first comparison and kept."""

    def __init__(self, image: Image.Image):
        self.size, self.tensor = image.size, to_tensor(image)
        self._features: dict[str, list[torch.Tensor]] = {}

    def features(self, metric: str) -> list[torch.Tensor]:
        """Of a metric of ``METRICS`` that has a network."""
        if metric not in self._features:
            self._features[metric] = _network(metric).features(self.tensor)
        return self._features[metric]


def _network(metric: str) -> LPIPS | ShiftedLPIPS | DISTS:
    from live.metrics import perceptual  # late: neither the decoder's process nor PSNR needs it

    if metric == "lpips_alex_shifted":
        return perceptual.ShiftedLPIPS()
    return perceptual.dists_network() if metric == "dists" else perceptual.lpips_network(metric.removeprefix("lpips_"))


def compare(picture: Seen, reference: Seen, metrics: list[str]) -> dict[str, float | None]:
    """The metrics of two pictures of one size; None where they are too small for a metric."""
    figures: dict[str, float | None] = {}
    with torch.inference_mode():
        for name in metrics:
            if min(picture.size) < METRICS[name].smallest:
                figures[name] = None
            elif name in ("psnr", "ms_ssim"):
                figures[name] = float(getattr(distortion, name)(picture.tensor, reference.tensor))
            else:
                figures[name] = float(_network(name).distance(picture.features(name), reference.features(name)))
    return figures


def score(image: Image.Image, reference: Image.Image, metrics: list[str]) -> dict[str, float | None]:
    """``compare`` for two pictures that are looked at only once."""
    return compare(Seen(image), Seen(reference), metrics)
