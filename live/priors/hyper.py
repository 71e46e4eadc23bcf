"""The mean-scale hyperprior of ``plus``, with a checkerboard context (two passes).

Sources: Minnen et al. 2018 (mean and scale from a hyperprior); He et al. 2021, "Checkerboard Context Model"
(anchors first, the other half conditioned on them). The factorised model of z and the Gaussian likelihood are
CompressAI's ``EntropyBottleneck`` and ``GaussianConditional``.

::

    y (B,c,h,w) ── h_a ── z (B,n_z,h/4,w/4) ── round ── h_s ── features (B,n,h,w)
    anchors (x+y even):  mean, scale = head(features)
    the others:          mean, scale = head(features) + context_head(features, conv5x5(decoded anchors))
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..borrowed import EntropyBottleneck, GaussianConditional, LowerBound
from ..nets import conv, upsample2, zero_init
from .exact import FRACTION, LIMIT, UNIT, exact, shift_right, to_fixed

SCALE_MIN, SCALE_MAX, SCALE_LEVELS = 0.11, 64.0, 64
SCALE_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALE_LEVELS - 1)
MEAN_PRECISION = 64
"""Means are rounded to this fraction of a quantisation step, so that they are exact fixed-point numbers."""
HYPER_FACTOR = 4
"""z is smaller than y by this factor in height and width; y must be padded to a multiple of it."""


def scale_table() -> list[float]:
    """The 64 standard deviations, log-spaced from 0.11 to 64, that a scale index selects from."""
    return [SCALE_MIN * math.exp(SCALE_STEP * index) for index in range(SCALE_LEVELS)]


class Estimate(NamedTuple):
    """Quantised latents y_hat (B, c, h, w) and the estimated bits of the whole batch in y and in z (scalars)."""

    y_hat: Tensor
    y_bits: Tensor
    z_bits: Tensor


def round_ste(x: Tensor) -> Tensor:
    """Rounds; the gradient passes straight through."""
    return x + (torch.round(x) - x).detach()


def anchor_mask(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(1, 1, height, width) booleans: True where row + column is even (the first pass)."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return ((rows[:, None] + columns) % 2 == 0)[None, None]


def half(values: Tensor, anchors: bool) -> Tensor:
    """The anchors of (B, c, h, w), h and w even, or the others: (B, c, h, w/2), in the order of a mask's."""
    pairs = values.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, c, h/2, 2, w/2, 2)
    first = 0 if anchors else 1
    return torch.stack((pairs[:, :, :, 0, :, first], pairs[:, :, :, 1, :, 1 - first]), 3).flatten(2, 3)


def put_half(values: Tensor, anchors: bool, part: Tensor) -> None:
    """Write ``part``, as ``half`` gives it, back into its places in ``values``."""
    first = 0 if anchors else 1
    values[:, :, 0::2, first::2], values[:, :, 1::2, 1 - first :: 2] = part[:, :, 0::2], part[:, :, 1::2]


def scales_of(indices: Tensor) -> Tensor:
    """Standard deviations of real-valued scale indices."""
    return SCALE_MIN * torch.exp(SCALE_STEP * indices)


class Hyperprior(nn.Module):
    """Entropy model of integer-spaced latents y (B, c, h, w), h and w multiples of 4.

    channels: c; width: hidden channels n; z_channels: n_z. The second checkerboard half sees the first.
    """

    def __init__(self, channels: int, width: int, z_channels: int):
        super().__init__()
        self.channels = channels
        self.h_a = nn.Sequential(
            conv(channels, width), nn.ReLU(), conv(width, width, 5, 2), nn.ReLU(), conv(width, z_channels, 5, 2)
        )
        self.h_s = nn.Sequential(
            upsample2(z_channels, width), nn.ReLU(), upsample2(width, width), nn.ReLU(), conv(width, width), nn.ReLU()
        )
        self.head = conv(width, 2 * channels, 1)
        zero_init(self.head)
        nn.init.constant_(self.head.bias[channels:], math.log(1.0 / SCALE_MIN) / SCALE_STEP)
        self.context = conv(channels, width, 5)
        self.context_head = nn.Sequential(conv(2 * width, width, 1), nn.ReLU(), zero_init(conv(width, 2 * channels, 1)))
        self.entropy_bottleneck = EntropyBottleneck(z_channels)
        # z is rounded to plain integers: the bottleneck's medians stay 0 and its quantiles are not trained.
        self.entropy_bottleneck.quantiles.requires_grad_(False)
        self.gaussian = GaussianConditional(scale_table())
        self.scale_bound = LowerBound(0)

    def features(self, z_hat: Tensor) -> Tensor:
        return self.h_s(z_hat)

    def parameters_of(self, features: Tensor, anchors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Means (B, c, h, w) and real-valued scale indices in [0, 63]; with the decoded anchors, for the second pass."""
        raw = self.head(features)
        if anchors is not None:
            raw = raw + self.context_head(torch.cat([features, torch.relu(self.context(anchors))], 1))
        means, indices = raw.chunk(2, 1)
        return means, self.scale_bound(indices).clamp(max=SCALE_LEVELS - 1)

    def forward(self, y: Tensor) -> Estimate:
        """Differentiable estimate: noise for the rate, straight-through rounding for y_hat (Minnen & Singh 2020)."""
        z = self.h_a(y)
        _, z_likelihoods = self.entropy_bottleneck(z)
        features = self.features(round_ste(z))
        means, indices = self.parameters_of(features)
        y_hat = round_ste(y - means) + means
        mask = anchor_mask(*y.shape[2:], y.device)
        anchors = torch.where(mask, y_hat, 0.0)
        context_means, context_indices = self.parameters_of(features, anchors)
        means = torch.where(mask, means, context_means)
        indices = torch.where(mask, indices, context_indices)
        y_hat = torch.where(mask, y_hat, round_ste(y - means) + means)
        _, y_likelihoods = self.gaussian(y, scales_of(indices), means)
        return Estimate(y_hat, bits(y_likelihoods), bits(z_likelihoods))


class ExactHyperprior:
    """A trained hyperprior's decoder side in integers (see ``exact``): z's symbols and decoded anchors in, and out come
    means in units of 1 / ``MEAN_PRECISION`` and table rows, the same on every machine."""

    def __init__(self, hyper: Hyperprior):
        self.h_s, self.head = exact(hyper.h_s), exact([hyper.head])
        self.context, self.context_head = exact([hyper.context, nn.ReLU()]), exact(hyper.context_head)

    def features(self, z: Tensor) -> Tensor:
        """Symbols of z (1, n_z, h/4, w/4), integers -> features (1, n, h, w) in fixed point."""
        return self.h_s(to_fixed(z))

    def parameters_of(self, features: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Means (1, c, h, w/2) int32 in units of 1 / ``MEAN_PRECISION`` and table rows, uint8 in [0, 63], of the anchors.

        y: given the decoded anchors, (1, c, h, w) in the same units with zeros where not yet known, of the others instead.
        """
        x = half(features, y is None)
        raw = self.head(x)
        if y is not None:
            known = (y.double() * (UNIT // MEAN_PRECISION)).clamp_(-LIMIT, LIMIT)
            raw = raw + self.context_head(torch.cat([x, half(self.context(known), False)], 1))
        return selected(raw)


def selected(raw: Tensor) -> tuple[Tensor, Tensor]:
    """The heads' results (B, 2c, h, w) in units of 2^-10 -> means, int32 in units of 1 / ``MEAN_PRECISION``, and rows."""
    means, indices = raw.chunk(2, 1)
    rows = shift_right(indices, FRACTION).clamp_(0, SCALE_LEVELS - 1).to(torch.uint8)
    return shift_right(means, FRACTION - MEAN_PRECISION.bit_length() + 1).to(torch.int32), rows


def bits(likelihoods: Tensor) -> Tensor:
    """Information content in bits, summed: -sum(log2 p)."""
    return -torch.log2(likelihoods).sum()


def bits_as_coded(gaussian: GaussianConditional, y: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    """Bits of y's symbols, all (B, c, h, w), as they will be coded, summed; to the scales their gradient, to means and y that of
    noise while ``gaussian`` is in training.

    For predicted frames: where nothing moves all symbols are 0 at the smallest scales, and noise would make these learn to
    be larger.
    """
    _, rounded = gaussian(y, scales, means.detach(), training=False)
    if not gaussian.training:
        return bits(rounded)
    _, noisy = gaussian(y, scales.detach(), means)
    smooth = bits(noisy)
    return bits(rounded) + smooth - smooth.detach()
