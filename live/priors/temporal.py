"""The entropy model of a predicted frame: a hyperprior that also sees the decoded y of the frame before.

There is no motion estimation: a stack of depth-wise convolutions over the previous y (as the contexts of Jia et al. 2025,
GLC-video) corrects it. The y of a predicted frame is ``fineness`` times that of an intra frame, for finer steps. One network
serves all qualities, whose y differ in scale: a quality has a gain per channel on either side, in whose units the network
sees y and corrects it, and a vector on the features.

::

    y - y', y' (B,c,h,w) ── h_a ── z (B,n_z,h/4,w/4) ── round ── h_s ─┐       (y': decoded y of the frame before)
    y' ── x inward gains ── enter ── + the quality's vector ───────── + ── blocks ── features (B,n,h,w)
    anchors (x+y even):  mean = y' + outward gains x m;  m, scale = head(features)
    the others:          m, scale = head(features) + context_head(features, conv5x5(inward gains x (anchors - y')))

At initialisation z is 0 and m is 0: the frame before predicts this one, and what moves is quantised around that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..borrowed import EntropyBottleneck, GaussianConditional, LowerBound
from ..depthconv import depth_conv_block, pointwise
from ..nets import Sum, conv, zero_init
from .exact import FRACTION, LIMIT, UNIT, exact, exact_twin, shift_right, to_fixed
from .hyper import (
    HYPER_FACTOR,
    MEAN_PRECISION,
    SCALE_LEVELS,
    SCALE_MIN,
    SCALE_STEP,
    Estimate,
    anchor_mask,
    bits,
    bits_as_coded,
    half,
    round_ste,
    scale_table,
    scales_of,
    selected,
)

FIRST_DEVIATION = 0.2
"""The standard deviation that all scales start from: a symbol of what stands still then takes 0.02 bits."""
Z_SPREAD = 0.05
"""How far from 0 z's densities reach at first: a symbol of 0 then takes 0.3 bits."""
FARTHEST = 1 << 20
"""Largest magnitude, in units of 1 / ``MEAN_PRECISION``, that y is predicted from: what symbols can be, so that no chain of
frames leaves 32 bits."""
FINENESS = 1.3
"""How many steps of a predicted frame take the place of an intra frame's, at first."""


def gains(channels: int, value: float = 1.0) -> nn.Conv2d:
    """A factor for every channel, ``value`` at first."""
    layer = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


class TemporalHyperprior(nn.Module):
    """Entropy model of integer-spaced y (B, c, h, w), h and w multiples of 4, given the decoded y of the frame before.

    channels: c; width: hidden channels n; blocks: of the temporal network; z_channels: n_z; qualities: how many it serves.
    """

    def __init__(self, channels: int, width: int, blocks: int, z_channels: int, qualities: int):
        super().__init__()
        self.channels = channels
        self.fineness = nn.ModuleList(gains(channels, FINENESS) for _ in range(qualities))
        self.inward = nn.ModuleList(gains(channels) for _ in range(qualities))
        self.outward = nn.ModuleList(gains(channels) for _ in range(qualities))
        self.vectors = nn.Parameter(torch.zeros(qualities, width))
        self.h_a = nn.Sequential(
            conv(2 * channels, width), nn.ReLU(), conv(width, width, 5, 2), nn.ReLU(),
            zero_init(conv(width, z_channels, 5, 2)),
        )  # fmt: skip
        self.h_s = nn.Sequential(
            conv(z_channels, width), nn.ReLU(), pointwise(width, HYPER_FACTOR**2 * width), nn.PixelShuffle(HYPER_FACTOR)
        )
        self.enter = pointwise(channels, width)
        self.sum = Sum()
        self.blocks = nn.Sequential(*(depth_conv_block(width, width) for _ in range(blocks)))
        self.head = zero_init(pointwise(width, 2 * channels))
        nn.init.constant_(self.head.bias[channels:], math.log(FIRST_DEVIATION / SCALE_MIN) / SCALE_STEP)
        self.context = conv(channels, width, 5)
        self.context_head = nn.Sequential(
            pointwise(2 * width, width), nn.ReLU(), zero_init(pointwise(width, 2 * channels))
        )
        self.entropy_bottleneck = EntropyBottleneck(z_channels, init_scale=Z_SPREAD)
        # z is rounded to plain integers: see Hyperprior
        self.entropy_bottleneck.quantiles.requires_grad_(False)
        self.gaussian = GaussianConditional(scale_table())
        self.scale_bound = LowerBound(0)

    def set_gains(self, quality: int, log_gain: Tensor) -> None:
        """See y of a quality as what it was before these gains, log (c values), made it of latents of unit variance."""
        with torch.no_grad():
            self.inward[quality].weight.copy_((-log_gain).exp().view(-1, 1, 1, 1) / FINENESS)
            self.outward[quality].weight.copy_(log_gain.exp().view(-1, 1, 1, 1) * FINENESS)

    def analyse(self, y: Tensor, before: Tensor, quality: int) -> Tensor:
        """z (B, n_z, h/4, w/4), to be rounded."""
        inward = self.inward[quality]
        return self.h_a(torch.cat([inward(y - before), inward(before)], 1))

    def features(self, z_hat: Tensor, before: Tensor, quality: int) -> Tensor:
        """Rounded z (B, n_z, h/4, w/4) and the decoded y of the frame before, (B, c, h, w) -> features (B, n, h, w)."""
        entered = self.enter(self.inward[quality](before)) + self.vectors[quality][:, None, None]
        return self.blocks(self.sum(entered, self.h_s(z_hat)))

    def parameters_of(
        self, features: Tensor, before: Tensor, quality: int, anchors: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Means (B, c, h, w) and real-valued scale indices in [0, 63]; for the second pass with what decoded anchors differ by
        from ``before``, zero elsewhere."""
        raw = self.head(features)
        if anchors is not None:
            context = torch.relu(self.context(self.inward[quality](anchors)))
            raw = raw + self.context_head(torch.cat([features, context], 1))
        corrections, indices = raw.chunk(2, 1)
        means = before + self.outward[quality](corrections)
        return means, self.scale_bound(indices).clamp(max=SCALE_LEVELS - 1)

    def forward(self, y: Tensor, before: Tensor, quality: int) -> Estimate:
        """Differentiable estimate (see ``bits_as_coded``), straight-through rounding for y_hat (Minnen & Singh 2020)."""
        z = self.analyse(y, before, quality)
        _, z_likelihoods = self.entropy_bottleneck(z)
        features = self.features(round_ste(z), before, quality)
        means, indices = self.parameters_of(features, before, quality)
        mask = anchor_mask(*y.shape[2:], y.device)
        y_hat = round_ste(y - means) + means
        seen = self.parameters_of(features, before, quality, torch.where(mask, y_hat - before, 0.0))
        means, indices = torch.where(mask, means, seen[0]), torch.where(mask, indices, seen[1])
        y_hat = torch.where(mask, y_hat, round_ste(y - means) + means)
        return Estimate(y_hat, bits_as_coded(self.gaussian, y, means, scales_of(indices)), bits(z_likelihoods))


class ExactTemporal:
    """The decoder side of a trained ``TemporalHyperprior`` in integers (see ``exact``), the same on every machine.

    ``before`` is the decoded y of the frame before, (1, c, h, w) int32 in units of 1 / ``MEAN_PRECISION``.
    """

    def __init__(self, model: TemporalHyperprior):
        self.fineness, self.inward, self.outward = (
            [exact_twin(layer) for layer in layers] for layers in (model.fineness, model.inward, model.outward)
        )
        self.vectors = to_fixed(model.vectors.detach())
        self.h_s, self.blocks = exact_twin(model.h_s), exact_twin(model.blocks)
        self.enter, self.sum, self.head = exact_twin(model.enter), exact_twin(model.sum), exact_twin(model.head)
        self.context = exact([model.context, nn.ReLU()])
        self.context_head = exact_twin(model.context_head)

    def features(self, z: Tensor, before: Tensor, quality: int) -> Tensor:
        """Symbols of z (1, n_z, h/4, w/4), integers -> features (1, n, h, w) in fixed point."""
        entered = self.sum(self.enter(self.inward[quality](_entering(before))), self.vectors[quality][:, None, None])
        return self.blocks(self.sum(entered, self.h_s(to_fixed(z))))

    def parameters_of(
        self, features: Tensor, before: Tensor, quality: int, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Means (1, c, h, w/2) int32 in units of 1 / ``MEAN_PRECISION`` and table rows, uint8 in [0, 63], of the anchors.

        y: given the decoded anchors, (1, c, h, w) in the same units, whatever elsewhere, of the others instead.
        """
        x = half(features, y is None)
        raw = self.head(x)
        if y is not None:
            changes = torch.where(anchor_mask(*y.shape[2:]), y - before, 0)
            context = half(self.context(self.inward[quality](_entering(changes))), False)
            raw = raw + self.context_head(torch.cat([x, context], 1))
        corrections, indices = raw.chunk(2, 1)
        means, rows = selected(torch.cat([self.outward[quality](corrections), indices], 1))
        return means + half(before, y is None), rows


def rescaled(gains: nn.Module, y: Tensor) -> Tensor:
    """Decoded y, (1, c, h, w) int32 in units of 1 / ``MEAN_PRECISION``, times exact ``gains``: the same again."""
    return shift_right(gains(_entering(y)), FRACTION - MEAN_PRECISION.bit_length() + 1).int()


def _entering(y: Tensor) -> Tensor:
    """What is decoded, in fixed point."""
    return (y.double() * (UNIT // MEAN_PRECISION)).clamp_(-LIMIT, LIMIT)
