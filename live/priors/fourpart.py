"""The entropy model of GLC: categorical hyper module, prior fusion and four-part context (four passes over y).

Sources: Jia et al. 2024 (GLC) for the categorical hyper module, jzyustc/GLC for the shape; Li et al. 2023 (DCVC-DC) for the
four-part context: in pass p the k-th quarter of the channels codes one of every four positions, another in each pass.

::

    y (B,N,h,w) ── h_a ── z (B,N,h/4,w/4) ── nearest codebook entry ── h_s ── fusion ── step, scale, mean (B,3N,h,w)
    y / step = u;  pass 0: mean, scale;  passes 1 to 3: mean, scale = spatial(adaptor_p(u_hat so far, reduction(fusion)))
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..borrowed import EntropyBottleneck, GaussianConditional, LowerBound
from ..depthconv import UpsampleBlock, depth_conv_block, pointwise
from ..nets import conv
from .exact import LIMIT, UNIT, exact_twin, to_fixed
from .hyper import (
    MEAN_PRECISION,
    SCALE_LEVELS,
    SCALE_MIN,
    SCALE_STEP,
    bits,
    round_ste,
    scale_table,
    scales_of,
    selected,
)
from .quantiser import VectorQuantiser
from .tables import categorical_shares

PASSES = 4
HYPER_FACTOR = 4
PLACES = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2))
"""PLACES[p][k]: which of every 2 x 2 positions (row-major) quarter k of the channels codes in pass p."""
LEAST_STEP = 0.5


def quarter(values: Tensor, number: int) -> Tensor:
    """What pass ``number`` codes of (B, c, h, w), h and w even: (B, c, h/2, w/2)."""
    parts = values.chunk(PASSES, 1)
    return torch.cat(
        [part[:, :, place // 2 :: 2, place % 2 :: 2] for part, place in zip(parts, PLACES[number], strict=True)], 1
    )


def put_quarter(values: Tensor, number: int, part: Tensor) -> None:
    """Write ``part``, as ``quarter`` gives it, back into its places in ``values``."""
    whole = zip(values.chunk(PASSES, 1), part.chunk(PASSES, 1), PLACES[number], strict=True)
    for target, source, place in whole:
        target[:, :, place // 2 :: 2, place % 2 :: 2] = source


def quarter_mask(channels: int, height: int, width: int, number: int, device: torch.device | None = None) -> Tensor:
    """(1, channels, height, width) booleans: True where pass ``number`` codes."""
    mask = torch.zeros(1, channels, height, width, dtype=torch.bool, device=device)
    put_quarter(mask, number, torch.ones(1, channels, height // 2, width // 2, dtype=torch.bool, device=device))
    return mask


class Estimate(NamedTuple):
    """Quantised y (B, N, h, w); estimated bits of the batch in y and in z; the quantiser's loss (all scalars)."""

    y_hat: Tensor
    y_bits: Tensor
    z_bits: Tensor
    vq_loss: Tensor


class FourPart(nn.Module):
    """Entropy model of y (B, N, h, w), h and w multiples of 4, N of 4.

    codebook: entries of the categorical hyper module, or 0: a factorised hyperprior instead (the ablation). blocks: of
    the network that predicts from what is decoded.
    """

    def __init__(self, channels: int, codebook: int, blocks: int):
        super().__init__()
        n = self.channels = channels
        self.h_a = nn.Sequential(depth_conv_block(n, n), conv(n, n, stride=2), nn.LeakyReLU(0.01), conv(n, n, stride=2))
        self.categorical = VectorQuantiser(codebook, n) if codebook else None
        self.factorised = None if codebook else EntropyBottleneck(n)
        if self.factorised is not None:  # z is rounded to plain integers: see Hyperprior
            self.factorised.quantiles.requires_grad_(False)
        self.h_s = nn.Sequential(UpsampleBlock(n), UpsampleBlock(n), depth_conv_block(n, n))
        self.fusion = nn.Sequential(depth_conv_block(n, 2 * n), depth_conv_block(2 * n, 3 * n))
        self.reduction = pointwise(3 * n, n)
        self.adaptors = nn.ModuleList(depth_conv_block(2 * n, 2 * n) for _ in range(PASSES - 1))
        self.spatial = nn.Sequential(*(depth_conv_block(2 * n, 2 * n) for _ in range(blocks)))
        self.gaussian = GaussianConditional(scale_table())
        self.scale_bound, self.step_bound = LowerBound(0), LowerBound(LEAST_STEP)
        with torch.no_grad():  # at first: steps of 1, deviations of 1
            self.fusion[-1][-1].last.bias[:n] += 1.0
            for last, scales in ((self.fusion, slice(2 * n, 3 * n)), (self.spatial, slice(n, 2 * n))):
                last[-1][-1].last.bias[scales] += math.log(1.0 / SCALE_MIN) / SCALE_STEP

    def quantised(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z (B, N, h/4, w/4) -> what h_s sees, the bits of all its symbols, the quantiser's loss."""
        if self.categorical is None:
            _, likelihoods = self.factorised(z)
            return round_ste(z), bits(likelihoods), z.new_zeros(())
        z_hat, loss, indices = self.categorical(z)
        return z_hat, bits(categorical_shares(self.categorical.usage)[indices]), loss

    @torch.no_grad()
    def usual_steps(self) -> Tensor:
        """The N steps that the entries of the categorical hyper module make on average, each as often as it was chosen of late;
        of a factorised one, those of z = 0."""
        if self.categorical is None:
            z_hat, shares = torch.zeros(1, self.channels, 1, 1), torch.ones(1)
        else:
            z_hat, shares = (
                self.categorical.codebook[:, :, None, None],
                categorical_shares(self.categorical.usage).float(),
            )
        steps = self.fusion(self.h_s(z_hat))[:, : self.channels].clamp(min=LEAST_STEP)
        return (steps.mean((2, 3)) * shares[:, None]).sum(0)

    def forward(self, y: Tensor) -> Estimate:
        """Differentiable estimate: noise for the rate, straight-through rounding for y_hat (Minnen & Singh 2020)."""
        z_hat, z_bits, vq_loss = self.quantised(self.h_a(y))
        common = self.fusion(self.h_s(z_hat))
        steps, means, indices = common.chunk(3, 1)
        steps, reduced = self.step_bound(steps), self.reduction(common)
        u = y / steps
        u_hat, all_means, all_indices = torch.zeros_like(u), means, indices
        for number in range(PASSES):
            if number:
                seen = self.adaptors[number - 1](torch.cat([u_hat, reduced], 1))
                means, indices = self.spatial(seen).chunk(2, 1)
            mask = quarter_mask(*u.shape[1:], number, u.device)
            u_hat = torch.where(mask, round_ste(u - means) + means, u_hat)
            all_means, all_indices = torch.where(mask, means, all_means), torch.where(mask, indices, all_indices)
        scales = scales_of(self.scale_bound(all_indices).clamp(max=SCALE_LEVELS - 1))
        _, likelihoods = self.gaussian(u, scales, all_means)
        return Estimate(u_hat * steps, bits(likelihoods), z_bits, vq_loss)


class ExactFourPart:
    """The decoder side of a trained ``FourPart`` in integers (see ``exact``), the same on every machine.

    All results are int32; means are in units of 1 / ``MEAN_PRECISION``, rows numbers of the tables' rows.
    """

    def __init__(self, model: FourPart):
        self.channels = model.channels
        self.codebook = None if model.categorical is None else to_fixed(model.categorical.codebook.detach())
        self.h_s, self.fusion, self.reduction = (exact_twin(net) for net in (model.h_s, model.fusion, model.reduction))
        self.adaptors = [exact_twin(adaptor) for adaptor in model.adaptors]
        self.spatial = exact_twin(model.spatial)

    def first(self, z: Tensor) -> Tensor:
        """Symbols of z, numbers of entries (1, 1, h/4, w/4) or (1, N, h/4, w/4) -> (1, 4N, h, w): quantisation steps in units
        of 1 / ``UNIT``, the means and the rows of pass 0, and what ``later`` takes of the fusion.

        A number that no entry has, which only a damaged file states, is taken for the nearest that one has.
        """
        if self.codebook is None:
            z_hat = to_fixed(z)
        else:
            z_hat = self.codebook[z[:, 0].clamp(0, len(self.codebook) - 1)].permute(0, 3, 1, 2)
        common = self.fusion(self.h_s(z_hat))
        steps = common[:, : self.channels].clamp(min=LEAST_STEP * UNIT)
        predicted = selected(common[:, self.channels :])
        return torch.cat([part.int() for part in (steps, *predicted, self.reduction(common))], 1)

    def later(self, number: int, seen: Tensor) -> Tensor:
        """Means and rows, (1, 2N, h, w), of pass 1 + ``number``, given what is decoded in the means' units, zero where nothing
        is yet, and ``first``'s last part: together (1, 2N, h, w)."""
        u_hat, reduced = seen.double().chunk(2, 1)
        known = (u_hat * (UNIT // MEAN_PRECISION)).clamp_(-LIMIT, LIMIT)
        return torch.cat(selected(self.spatial(self.adaptors[number](torch.cat([known, reduced], 1)))), 1)
