"""Networks in integer arithmetic: the same result on every machine, by construction.

Whatever selects a table row or shifts a symbol goes through here. Numbers are fixed point: activations are integers in
units of 2^-``FRACTION``, clamped to +-``LIMIT``; a layer's weights are integers of 15 bits and a sign, in units of its own
power of two. They follow from the checkpoint's stored floats by multiplication with powers of two and rounding, which
is exact. Convolutions run in float64 on these integers: every partial sum is an integer below 2^53, which the
constructor proves for the weights at hand, so that neither the order of summation nor the number of threads nor the
device can change it. Requantisation is a shift with rounding to nearest, halves up.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from ..nets import Product, Spread, Sum

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
    return shift_right_(values.clone(), bits)


def shift_right_(values: Tensor, bits: int) -> Tensor:
    """The same in place."""
    return values.mul_(2.0**-bits).add_(0.5).floor_() if bits else values


class ExactConv(nn.Module):
    """A Conv2d or ConvTranspose2d on fixed-point activations (B, C, H, W), float64 holding integers."""

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d):
        super().__init__()
        self.transposed = isinstance(layer, nn.ConvTranspose2d)
        if (self.transposed and layer.groups != 1) or layer.dilation != (1, 1) or layer.padding_mode != "zeros":
            raise ModelError(f"an entropy network has a layer {layer} without an exact twin")
        weight = layer.weight.detach().double()
        largest = weight.abs().max().item()
        self.bits = min(40, WEIGHT_BITS - math.frexp(largest)[1]) if largest else 0
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()
        self.register_buffer("weight", torch.floor(weight * 2.0**self.bits + 0.5))
        self.register_buffer("bias", torch.floor(bias.double() * 2.0 ** (self.bits + FRACTION) + 0.5))
        self.options = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}
        if self.transposed:
            self.options["output_padding"] = layer.output_padding
        others = (0, 2, 3) if self.transposed else (1, 2, 3)
        bound = (self.weight.abs().sum(others) * LIMIT + self.bias.abs()).max().item()
        if not bound < 2**52 or self.bits < 0:
            raise ModelError("the weights of an entropy network are out of range for exact arithmetic")
        self.register_buffer("taps", self._taps_of(layer))

    def _taps_of(self, layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor | None:
        """The weights by places of the window, row-major, (T, 1, O, C) or, of single channels, (T, O, 1); None for layers that
        change the size or have several groups of several channels.

        They are in units of the result: a sum is then an integer times a power of two, and no less exact.
        """
        rows, columns = layer.kernel_size
        same = layer.stride == (1, 1) and rows == columns and layer.padding == (rows // 2, rows // 2) and rows % 2
        single = layer.groups == layer.in_channels == layer.out_channels > 1
        if self.transposed or not same or not (layer.groups == 1 or single):
            return None
        weights = (self.weight * 2.0**-self.bits).flatten(2).permute(2, 0, 1).contiguous()
        return weights if single else weights[:, None]

    def forward(self, x: Tensor) -> Tensor:
        if self.taps is not None:
            return self._by_taps(x).floor_().clamp_(-LIMIT, LIMIT)[..., : x.shape[3]]
        operation = F.conv_transpose2d if self.transposed else F.conv2d
        # Sums are integers already; rounding removes what a transform-domain kernel may add.
        sums = operation(x, self.weight, self.bias, **self.options).round_()
        return shift_right_(sums, self.bits).clamp_(-LIMIT, LIMIT)

    def _by_taps(self, x: Tensor) -> Tensor:
        """The sums and a half, which rounds, as a sum over the taps: in float64 several times as fast as the library's kernel.

        With the picture laid out in one line every tap is a plain shift; what wraps around lies to the right of the result.
        """
        reach, side = self.options["padding"][0], self.weight.shape[3]
        batch, _, height, width = x.shape
        row = width + 2 * reach
        line = (F.pad(x, (reach,) * 4) if reach else x).flatten(2)
        offset = self.bias * 2.0**-self.bits + 0.5
        results = offset[:, None].repeat(batch, 1, height * row)
        sums = results[..., : height * row - 2 * reach]
        for number, tap in enumerate(self.taps):
            start = number // side * row + number % side
            seen = line[..., start : start + sums.shape[2]]
            if self.options["groups"] == 1:
                sums.baddbmm_(tap.expand(batch, -1, -1), seen)
            else:
                sums.addcmul_(seen, tap)
        return results.view(batch, -1, height, row)


class ExactLeakyReLU(nn.Module):
    """x where it is positive, else x times the slope, which is at most 1, in units of 2^-15, rounded."""

    def __init__(self, layer: nn.LeakyReLU):
        super().__init__()
        if not 0 <= layer.negative_slope <= 1:
            raise ModelError(f"an entropy network has a layer {layer} without an exact twin")
        self.slope = math.floor(layer.negative_slope * (1 << WEIGHT_BITS) + 0.5) * 2.0**-WEIGHT_BITS

    def forward(self, x: Tensor) -> Tensor:
        sloped = (x * self.slope).add_(0.5).floor_()
        return torch.maximum(x, sloped, out=sloped)  # the larger is x itself above zero, the other one below


class ExactSum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x + y).clamp_(-LIMIT, LIMIT)


class ExactProduct(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return shift_right_(x * y, FRACTION).clamp_(-LIMIT, LIMIT)


class ExactSpread(Spread):
    """Sums of products of activations, up to 2^12 of them, stay below 2^53 in any order."""

    def forward(self, maps: Tensor, vectors: Tensor) -> Tensor:
        return shift_right_(super().forward(maps, vectors), FRACTION).clamp_(-LIMIT, LIMIT)


def exact(layers: Iterable[nn.Module]) -> nn.Sequential:
    """The integer twin of layers in their present weights, one after the other."""
    return nn.Sequential(*(exact_twin(layer) for layer in layers))


def exact_twin(module: nn.Module) -> nn.Module:
    """The integer twin of a network in its present weights: the same code, its layers exchanged for exact ones.

    Known: convolutions, ReLU, LeakyReLU, PixelShuffle, ``nets.Sum``, ``nets.Product`` and ``nets.Spread``, and modules made of
    these alone, whose own code only passes on, splits and concatenates. ModelError for any other layer.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        return ExactConv(module)
    if isinstance(module, nn.LeakyReLU):
        return ExactLeakyReLU(module)
    if isinstance(module, Sum):
        return ExactSum()
    if isinstance(module, Product):
        return ExactProduct()
    if isinstance(module, Spread):
        return ExactSpread()
    if isinstance(module, (nn.ReLU, nn.PixelShuffle)):
        return module
    children = module._modules  # a layer that stands twice in a module is there twice
    if not (children or type(module) is nn.Sequential) or any(True for _ in module.parameters(recurse=False)):
        raise ModelError(f"an entropy network has a layer {type(module).__name__} without an exact twin")
    twin = copy.copy(module)
    twin._modules = {name: exact_twin(child) for name, child in children.items()}
    return twin
