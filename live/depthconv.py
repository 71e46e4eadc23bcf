"""The depth-wise convolution blocks of GLC (as in DCVC-DC, Li et al. 2023), in layers that have integer twins.

Source: jzyustc/GLC, the published inference code. Every block maps (B, in, H, W) to (B, out, H, W).
"""

from __future__ import annotations

from torch import Tensor, nn

from .nets import Product, Sum, conv, identity_init


def pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1x1 convolution."""
    return conv(inputs, outputs, 1)


def depthwise(channels: int) -> nn.Conv2d:
    """A 3x3 convolution of every channel by itself."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


class DepthConv(nn.Module):
    """x (through a 1x1 convolution where sizes differ) + 1x1, LeakyReLU, depth-wise 3x3, 1x1."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.branch = nn.Sequential(
            pointwise(inputs, inputs), nn.LeakyReLU(0.01), depthwise(inputs), pointwise(inputs, outputs)
        )
        self.adaptor = nn.Sequential(*([pointwise(inputs, outputs)] if inputs != outputs else []))
        self.sum = Sum()

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(self.adaptor(x), self.branch(x))


class GatedDepthConv(nn.Module):
    """x + 1x1 of (depth-wise 3x3 of LeakyReLU of 1x1) * (1x1): the transforms' block, of one size."""

    def __init__(self, channels: int):
        super().__init__()
        self.spatial = nn.Sequential(pointwise(channels, channels), nn.LeakyReLU(0.01), depthwise(channels))
        self.gate = pointwise(channels, channels)
        self.last = pointwise(channels, channels)
        self.product, self.sum = Product(), Sum()

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(x, self.last(self.product(self.spatial(x), self.gate(x))))


class ConvFFN(nn.Module):
    """x + 1x1 of a * LeakyReLU(b), where a and b are twice as wide as x and made by one 1x1 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = pointwise(channels, 4 * channels)
        self.relu = nn.LeakyReLU(0.1)
        self.last = pointwise(2 * channels, channels)
        self.product, self.sum = Product(), Sum()

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).chunk(2, 1)
        return self.sum(x, self.last(self.product(a, self.relu(b))))


def depth_conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """The block of the entropy networks."""
    return nn.Sequential(DepthConv(inputs, outputs), ConvFFN(outputs))


def gated_block(channels: int) -> nn.Sequential:
    """The block of the transforms."""
    return nn.Sequential(GatedDepthConv(channels), ConvFFN(channels))


class UpsampleBlock(nn.Module):
    """Sub-pixel upsampling by 2 with a residual: (B, C, H, W) -> (B, C, 2H, 2W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.skip = _subpixel(channels)
        self.branch = nn.Sequential(
            _subpixel(channels), nn.LeakyReLU(0.01), conv(channels, channels), nn.LeakyReLU(0.1)
        )
        self.sum = Sum()

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(self.skip(x), self.branch(x))


def _subpixel(channels: int) -> nn.Sequential:
    return nn.Sequential(pointwise(channels, 4 * channels), nn.PixelShuffle(2))


class Context(nn.Module):
    """What a frame tells of the next: (B, N, h, w) -> as one of several 1x1 adaptors has it, and features, both (B, N, h, w).

    adaptors: how many; they start as the identity. blocks: between what is adapted and the features.
    """

    def __init__(self, channels: int, adaptors: int, blocks: int):
        super().__init__()
        self.adaptors = nn.ModuleList(identity_init(pointwise(channels, channels)) for _ in range(adaptors))
        self.blocks = nn.Sequential(*(depth_conv_block(channels, channels) for _ in range(blocks)))

    def forward(self, before: Tensor, adaptor: int) -> tuple[Tensor, Tensor]:
        adapted = self.adaptors[adaptor](before)
        return adapted, self.blocks(adapted)
