"""Per-channel statistics of latents: what is known, what a folder states, and how to measure them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, ModelError
from .base import Statistics

FILE_NAME = "live_statistics.json"
"""In an autoencoder's folder: {"mean": [c numbers], "std": [c numbers]}."""


def find_statistics(
    identity: str, channels: int, given: Statistics | None = None, folder: Path | None = None
) -> Statistics:
    """The statistics of an autoencoder's c latent channels, from the first of these that there is.

    ``given`` by the caller; ``live_statistics.json`` in its folder; the constants registered for its identity; mean 0
    and std 1, since latents scaled for diffusion have about unit variance. ModelError when they do not fit.
    """
    if given is not None:
        return _checked(given, channels, "the statistics given")
    if folder is not None and (folder / FILE_NAME).is_file():
        return _checked(_read(folder / FILE_NAME), channels, str(folder / FILE_NAME))
    if identity in KNOWN:
        mean, std = KNOWN[identity]
        return _checked(Statistics(torch.tensor(mean), torch.tensor(std)), channels, "the registered statistics")
    return Statistics(torch.zeros(channels), torch.ones(channels))


@torch.no_grad()
def measure(encode: Callable[[Tensor], Tensor], pictures: Iterable[Tensor]) -> Statistics:
    """Statistics of what ``encode`` makes of batches of pictures (B, 3, H, W) in [0, 1], latents (B, c, h, w), every position
    counting once; InputError where there are none."""
    total, squares, count = 0.0, 0.0, 0
    for batch in pictures:
        latents = encode(batch).double()
        total, squares = total + latents.sum((0, 2, 3)), squares + (latents**2).sum((0, 2, 3))
        count += latents[:, 0].numel()
    if not count:
        raise InputError("no pictures to measure latent statistics on; give at least one")
    mean = total / count
    return Statistics(mean.float(), (squares / count - mean**2).clamp_min(1e-12).sqrt().float())


def _read(path: Path) -> Statistics:
    try:
        values = json.loads(path.read_text())
        return Statistics(*(torch.tensor(values[key], dtype=torch.float32) for key in ("mean", "std")))
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(f'{path} must hold {{"mean": [...], "std": [...]}}, one number a channel') from None


def _checked(statistics: Statistics, channels: int, where: str) -> Statistics:
    mean, std = statistics.mean.float(), statistics.std.float()
    if (
        mean.shape != (channels,)
        or std.shape != (channels,)
        or not (mean.isfinite() & std.isfinite() & (std > 0)).all()
    ):
        raise ModelError(f"{where} must be {channels} finite means and {channels} positive deviations, one a channel")
    return Statistics(mean, std)


# fmt: off
KNOWN: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # taef2, over the middle 256 x 256 px of 91 ImageNet photos
    "65adcee257d4f25393a2c89849d7a4e22c83d97d21f80dd28fd58618c5405f75": (
        (
            0.01, -0.02, -0.14, 0.03, 0.03, 0.11, -0.04, 0.02, -0.03, 0.12, 0.10, -0.08, 0.00, 0.16, 0.02, 0.09,
            -0.07, 0.17, -0.03, 0.05, -0.06, 0.03, 0.12, -0.09, 0.01, 0.00, 0.12, -0.03, 0.06, 0.05, 0.05, 0.05,
        ),
        (
            0.73, 1.00, 0.91, 0.95, 0.73, 0.95, 0.95, 0.78, 0.95, 0.64, 0.63, 0.97, 0.71, 0.69, 0.90, 1.02,
            0.78, 0.71, 0.74, 1.00, 0.78, 0.67, 0.77, 0.70, 0.94, 0.73, 0.98, 0.85, 0.74, 0.96, 0.79, 1.00,
        ),
    ),
}
"""Identity -> mean and std of every channel, by ``measure``."""
# fmt: on
