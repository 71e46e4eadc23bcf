"""The second integer arithmetic: sums below 2^24, so that float32 holds them and its fast matrix products are exact.

Activations are float32 integers (B, H, W, C) from 0 to ``LIMIT`` (signed where they enter), every channel in a
power-of-two unit of its own. A layer's weights are integers, every output channel's in a power-of-two unit of its own: as
fine as the proof allows, which bounds each partial sum below 2^24 in any order of summation. A convolution is a sum of
matrix products over its taps, never a transform-domain kernel, so that there is nothing to round away. The units are
chosen at export and stored in the checkpoint as integers; docs/format.md states it all to the bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ModelError

LIMIT = 2047
"""Largest activation: 11 bits."""
LARGEST_SUM = 2**24
FINEST_WEIGHT, COARSEST_WEIGHT, FINEST_ACTIVATION, COARSEST_ACTIVATION = 20, -20, 10, -6
"""Fractional bits of a unit, at most and at least."""
OUTPUT_FRACTION, OUTPUT_LIMIT = 10, 1 << 20
"""A head's results are in units of 2^-10, clamped to +-2^20, as in ``exact``."""


class Conv24:
    """A stride-1 convolution that keeps the size, its result requantised and clamped.

    weight (O, C, T): the stored floats, T taps (1, or 9 of a 3x3 window in row-major order; ``of`` takes any); bias (O,).
    inputs (C,), outputs (O,): fractional bits of the activations on either side; a head has no outputs, and no ReLU.
    bits (O,): fractional bits of the weights' product with its inputs. signed, limit: of the activations that enter.
    Raises ModelError when a sum could reach 2^24.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        inputs: Tensor,
        bits: Tensor,
        outputs: Tensor | None,
        signed: bool = False,
        limit: int = LIMIT,
    ):
        shift = bits.double() - (OUTPUT_FRACTION if outputs is None else outputs)
        whole, offset = fixed_weights(weight, bias, inputs, bits)
        offset += torch.where(shift > 0, 2.0 ** (shift - 1), 0.0)  # dropping bits then rounds halves up
        if not (largest_sum(whole, offset, signed, limit) < LARGEST_SUM).all():
            raise ModelError("the weights of an entropy network are out of range for exact arithmetic")
        self.taps = whole.permute(2, 1, 0).float().contiguous()  # (T, C, O)
        self.offset, self.scale = offset.float(), (2.0**-shift).float()
        self.bounds = (-OUTPUT_LIMIT, OUTPUT_LIMIT) if outputs is None else (0, LIMIT)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, O); zeros beyond the border."""
        if len(self.taps) == 1:
            return self.of(x)
        side = math.isqrt(len(self.taps))
        reach = side // 2
        padded = F.pad(x, (0, 0, reach, reach, reach, reach))
        batch, height, width, channels = padded.shape
        # With the picture laid out in one line every tap is a plain shift; what wraps around falls on the border.
        kind = sum_type()
        line = padded.reshape(-1, channels).to(kind)  # a thin picture's is not in one piece
        results = line.new_empty(len(line), len(self.offset))
        sums = results[: len(line) - 2 * reach * (width + 1)]
        sums.copy_(self.offset.expand_as(sums))
        for tap, weight in enumerate(self.taps.to(kind)):
            start = tap // side * width + tap % side
            sums.addmm_(line[start : start + len(sums)], weight)
        self._requantise(sums)
        return results.float().view(batch, height, width, -1)[:, : x.shape[1], : x.shape[2]]

    def of(self, *windows: Tensor) -> Tensor:
        """The same for what the taps see, side by side, in one tensor or several: (..., T * C) -> (..., O)."""
        kind = sum_type()
        parts = [part.reshape(-1, part.shape[-1]).to(kind) for part in windows]
        first, *others = self.taps.to(kind).flatten(0, 1).split([part.shape[1] for part in parts])
        sums = torch.addmm(self.offset.to(kind), parts[0], first)
        for part, weights in zip(parts[1:], others, strict=True):
            sums.addmm_(part, weights)
        return self._requantise(sums).float().view(*windows[0].shape[:-1], -1)

    def _requantise(self, sums: Tensor) -> Tensor:
        # Sums are integers already; rounding removes what another library's kernel may add.
        return sums.round_().mul_(self.scale).floor_().clamp_(*self.bounds)


def sum_type() -> torch.dtype:
    """What sums are made in: float32, or float64 where the process lets float32 be multiplied in shorter floats, which would
    round its integers (``torch.set_float32_matmul_precision`` and the backend's own switch)."""
    backend = getattr(torch.backends.mkldnn, "matmul", None)
    if backend is None:  # of older releases; newer ones refuse this question once the backend's switch is set
        return torch.float32 if torch.get_float32_matmul_precision() == "highest" else torch.float64
    return torch.float32 if backend.fp32_precision in ("none", "ieee") else torch.float64


def fixed_weights(weight: Tensor, bias: Tensor, inputs: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (O, C, T) and bias (O,) as integers in float64: the stored floats in their units, halves up."""
    units = 2.0 ** (bits.double()[:, None] - inputs.double())
    whole = torch.floor(weight.detach().double() * units[:, :, None] + 0.5)
    return whole, torch.floor(bias.detach().double() * 2.0 ** bits.double() + 0.5)


def largest_sum(whole: Tensor, offset: Tensor, signed: bool, limit: int) -> Tensor:
    """(O,): a bound on the magnitude of every partial sum, whatever the order of summation."""
    above, below = (part.clamp(min=0).sum((1, 2)) for part in (whole, -whole))
    return (above + below if signed else torch.maximum(above, below)) * limit + offset.abs()


def choose_bits(weight: Tensor, bias: Tensor, inputs: Tensor, signed: bool, limit: int) -> Tensor:
    """(O,) int8: the finest units of the weights that the proof allows; a sixteenth is left to what rounding adds."""
    bits = torch.full(bias.shape, FINEST_WEIGHT, dtype=torch.int8)
    while True:
        sums = largest_sum(*fixed_weights(weight, bias, inputs, bits), signed, limit)
        over = sums >= LARGEST_SUM - LARGEST_SUM // 16
        if not over.any():
            return bits
        if bits.min() < COARSEST_WEIGHT:
            raise ModelError("the weights of an entropy network are too large for exact arithmetic")
        bits -= over.to(torch.int8)


def choose_fractions(largest: Tensor) -> Tensor:
    """(C,) int8: the finest units of activations in which the largest that were seen still fit."""
    fractions = torch.floor(torch.log2(LIMIT / largest.clamp(min=1e-3)))
    return fractions.clamp(COARSEST_ACTIVATION, FINEST_ACTIVATION).to(torch.int8)


def shuffle2(x: Tensor) -> Tensor:
    """Sub-pixel upsampling (B, H, W, 4C) -> (B, 2H, 2W, C) of channels ordered by row, column, then channel."""
    batch, height, width, channels = x.shape
    parts = x.unflatten(3, (2, 2, -1))
    return parts.permute(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)
