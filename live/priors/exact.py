"""Networks in integer arithmetic: the same result on every machine, by construction (DESIGN: exact decoding).

Whatever selects a table row or shifts a symbol goes through here. Numbers are fixed point: activations are integers in
units of 2^-``FRACTION``, clamped to +-``LIMIT``; a layer's weights are integers of 15 bits and a sign, in units of its own
power of two. They follow from the checkpoint's stored floats by multiplication with powers of two and rounding, which
is exact. Convolutions run in float64 on these integers: every partial sum is an integer below 2^53, which the
constructor proves for the weights at hand, so that neither the order of summation nor the number of threads nor the
device can change it. Requantisation is a shift with rounding to nearest, halves up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError

FRACTION = 10
UNIT = 1 << FRACTION
"""Integers that make up 1.0 of an activation."""
LIMIT = 1 << 20
WEIGHT_BITS = 15


def to_fixed(values: Tensor) -> Tensor:
    """Real values -> fixed point, float64 holding integers, clamped to +-``LIMIT``."""
    return torch.floor(values.double() * UNIT + 0.5).clamp_(-LIMIT, LIMIT)


def shift_right(values: Tensor, bits: int) -> Tensor:
    """Integers (float64) divided by 2^bits, rounded to nearest, halves up."""
    return torch.floor(values / (1 << bits) + 0.5) if bits else values


class ExactConv(nn.Module):
    """A Conv2d or ConvTranspose2d on fixed-point activations (B, C, H, W), float64 holding integers."""

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d):
        super().__init__()
        weight = layer.weight.detach().double()
        largest = weight.abs().max().item()
        self.bits = min(40, WEIGHT_BITS - math.frexp(largest)[1]) if largest else 0
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()
        self.register_buffer("weight", torch.floor(weight * 2.0**self.bits + 0.5))
        self.register_buffer("bias", torch.floor(bias.double() * 2.0 ** (self.bits + FRACTION) + 0.5))
        self.transposed = isinstance(layer, nn.ConvTranspose2d)
        self.options = {"stride": layer.stride, "padding": layer.padding}
        if self.transposed:
            self.options["output_padding"] = layer.output_padding
        others = (0, 2, 3) if self.transposed else (1, 2, 3)
        bound = (self.weight.abs().sum(others) * LIMIT + self.bias.abs()).max().item()
        if not bound < 2**52 or self.bits < 0 or layer.groups != 1 or layer.dilation != (1, 1):
            raise ModelError("the weights of an entropy network are out of range for exact arithmetic")

    def forward(self, x: Tensor) -> Tensor:
        operation = F.conv_transpose2d if self.transposed else F.conv2d
        # Sums are integers already; rounding removes what a transform-domain kernel may add.
        sums = torch.round(operation(x, self.weight, self.bias, **self.options))
        return shift_right(sums, self.bits).clamp_(-LIMIT, LIMIT)


def exact(layers: Iterable[nn.Module]) -> nn.Sequential:
    """The integer twin of layers (convolutions, ReLU, PixelShuffle, nested Sequentials) in their present weights."""
    twins: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            twins.append(exact(layer))
        elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            twins.append(ExactConv(layer))
        elif isinstance(layer, (nn.ReLU, nn.PixelShuffle)):
            twins.append(layer)
        else:
            raise ModelError(f"an entropy network has a layer {type(layer).__name__} without an exact twin")
    return nn.Sequential(*twins)
