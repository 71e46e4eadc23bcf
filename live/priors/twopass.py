"""The entropy model of GLC's predicted frames: temporal context, tokens, and a checkerboard of two passes.

Source: Jia et al. 2025 (arXiv 2505.16177), with the context from the decoded y of the frame before, which is exact, not from
its decoded latents, which are floats.

::

    y_hat of the frame before ── adaptor ── base ── blocks ── features (B,N,h,w)
    y, features ── Tokens ── spread;   [spread, features] ── fusion ── head ── step, mean, scale (B,3N,h,w)
    u = (y - base) / step;  anchors (x+y even): mean, scale;  the others: + second([u_hat of the anchors, reduction(fusion)])

At first adaptors are the identity, and all means 0: the frame before predicts this one, as it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..borrowed import GaussianConditional, LowerBound
from ..depthconv import Context, depth_conv_block, pointwise
from ..nets import zero_init
from .exact import LIMIT, UNIT, exact_twin, shift_right
from .fourpart import LEAST_STEP, Estimate
from .hyper import (
    MEAN_PRECISION,
    SCALE_LEVELS,
    SCALE_MIN,
    SCALE_STEP,
    anchor_mask,
    bits_as_coded,
    round_ste,
    scale_table,
    scales_of,
)
from .tokens import ExactTokens, Tokens

FIRST_DEVIATION = 0.3
"""The standard deviation, in steps, that all scales start from: most of a frame is as it was in the one before."""


class TwoPass(nn.Module):
    """Entropy model of y (B, N, h, w), h and w even, given the decoded y of the frame before.

    codebook, tokens, heads: of ``Tokens``; adaptors and context_blocks: of the temporal ``Context``; blocks: of the second pass.
    """

    def __init__(
        self, channels: int, codebook: int, tokens: int, heads: int, adaptors: int, context_blocks: int, blocks: int
    ):
        super().__init__()
        n = self.channels = channels
        self.context = Context(n, adaptors, context_blocks)
        self.tokens = Tokens(n, codebook, tokens, heads)
        self.fusion = depth_conv_block(2 * n, 2 * n)
        self.head = zero_init(pointwise(2 * n, 3 * n))
        self.reduction = pointwise(2 * n, n)
        self.second = nn.Sequential(
            *(depth_conv_block(2 * n, 2 * n) for _ in range(1 + blocks)), zero_init(pointwise(2 * n, 2 * n))
        )
        self.gaussian = GaussianConditional(scale_table())
        self.scale_bound, self.step_bound = LowerBound(0), LowerBound(LEAST_STEP)
        nn.init.constant_(self.head.bias[2 * n :], math.log(FIRST_DEVIATION / SCALE_MIN) / SCALE_STEP)
        self.start_steps(torch.ones(n))

    @torch.no_grad()
    def start_steps(self, steps: Tensor) -> None:
        """Quantise the channels by these N steps, until training finds better ones."""
        self.head.bias[: self.channels] = steps

    def forward(self, y: Tensor, before: Tensor, adaptor: int) -> Estimate:
        """Differentiable estimate (see ``bits_as_coded``), straight-through rounding for y_hat (Minnen & Singh 2020).

        before: decoded y of the frame before, (B, N, h, w); adaptor: which of them it passes.
        """
        base, features = self.context(before, adaptor)
        spread, z_bits, vq_loss = self.tokens(y, features)
        fused = self.fusion(torch.cat([spread, features], 1))
        steps, means, indices = self.head(fused).chunk(3, 1)
        steps = self.step_bound(steps)
        u, mask = (y - base) / steps, anchor_mask(*y.shape[2:], y.device)
        u_hat = round_ste(u - means) + means
        seen = torch.cat([torch.where(mask, u_hat, 0.0), self.reduction(fused)], 1)
        more_means, more_indices = torch.where(mask, 0.0, self.second(seen)).chunk(2, 1)
        means, indices = means + more_means, indices + more_indices
        u_hat = torch.where(mask, u_hat, round_ste(u - means) + means)
        scales = scales_of(self.scale_bound(indices).clamp(max=SCALE_LEVELS - 1))
        return Estimate(base + u_hat * steps, bits_as_coded(self.gaussian, u, means, scales), z_bits, vq_loss)


class ExactTwoPass:
    """The decoder side of a trained ``TwoPass`` in integers (see ``exact``), the same on every machine.

    Activations are float64 holding integers, in units of 1 / ``UNIT`` where nothing else is said.
    """

    def __init__(self, model: TwoPass):
        self.context, self.fusion, self.head = (exact_twin(net) for net in (model.context, model.fusion, model.head))
        self.reduction, self.second = exact_twin(model.reduction), exact_twin(model.second)
        self.spread = ExactTokens(model.tokens)

    def temporal(self, before: Tensor, adaptor: int) -> Tensor:
        """Decoded y of the frame before, (1, N, h, w) -> base and features, (1, 2N, h, w)."""
        return torch.cat(self.context(before, adaptor), 1)

    def first(self, seen: Tensor) -> Tensor:
        """Spread tokens and features, (1, 2N, h, w) -> steps, means and scale indices of the anchors, and what ``later`` takes of
        the fusion: (1, 4N, h, w)."""
        fused = self.fusion(seen)
        predicted = self.head(fused)
        predicted[:, : predicted.shape[1] // 3].clamp_(min=LEAST_STEP * UNIT)
        return torch.cat([predicted, self.reduction(fused)], 1)

    def later(self, seen: Tensor) -> Tensor:
        """Decoded anchors, u_hat in units of 1 / ``MEAN_PRECISION`` with zeros elsewhere, and ``first``'s last part, together
        (1, 2N, h, w) -> what is to be added to the first means and indices, (1, 2N, h, w)."""
        u_hat, reduced = seen.chunk(2, 1)
        known = (u_hat * (UNIT // MEAN_PRECISION)).clamp(-LIMIT, LIMIT)
        return self.second(torch.cat([known, reduced], 1))

    @staticmethod
    def decoded(u_hat: Tensor, steps: Tensor, base: Tensor) -> Tensor:
        """u_hat in units of 1 / ``MEAN_PRECISION``, all (1, N, h, w) -> y, clamped to +-``LIMIT``."""
        return (shift_right(u_hat * steps, MEAN_PRECISION.bit_length() - 1) + base).clamp_(-LIMIT, LIMIT)
