"""Building blocks shared by the networks: residual blocks, up- and down-sampling. All fully convolutional, no norms.

Every receptive field is bounded (no global pooling, attention or normalisation), so that a tile with enough overlap
decodes to the same pixels as the whole picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Sum(nn.Module):
    """x + y, as a layer: what has no weights has an integer twin too (see ``priors.exact``)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


LARGEST_PRODUCT = 1024.0
"""As in the integer twins (``priors.exact``). Features are of tens; products of products can run away on what is unlike all that
was trained on."""


class Product(nn.Module):
    """x * y, at most ``LARGEST_PRODUCT`` in size, as a layer."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x * y).clamp(-LARGEST_PRODUCT, LARGEST_PRODUCT)


class Spread(nn.Module):
    """Vectors over a grid by weight maps, as a layer: maps (B, G K, h, w), vectors (B, C, K, 1) -> (B, C, h, w), C a multiple of G.

    Of G equal parts of the channels, part g is at every position the sum over k of map (g, k) times that part of vector k.
    """

    def forward(self, maps: Tensor, vectors: Tensor) -> Tensor:
        count = vectors.shape[2]
        heads = maps.shape[1] // count
        parts = vectors.squeeze(3).unflatten(1, (heads, -1))  # (B, G, C / G, K)
        spread = parts @ maps.flatten(2).unflatten(1, (heads, count))
        return spread.flatten(1, 2).unflatten(2, maps.shape[2:])


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution with zero padding that keeps the size (stride 1) or halves it (stride 2)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    """Zero weights and bias: the branch that ends in this layer adds nothing until it has learned to."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def identity_init(layer: nn.Conv2d) -> nn.Conv2d:
    """A 1x1 convolution that passes on its first inputs, as many as it has outputs, and nothing of the others."""
    nn.init.dirac_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ResBlock(nn.Module):
    """x + conv3x3(relu(conv3x3(relu(x)))), (B, C, H, W) -> (B, C, H, W); the identity at initialisation."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = zero_init(conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.conv1(torch.relu(x))))


def upsample2(inputs: int, outputs: int) -> nn.Sequential:
    """Sub-pixel upsampling (B, inputs, H, W) -> (B, outputs, 2H, 2W)."""
    return nn.Sequential(conv(inputs, 4 * outputs), nn.PixelShuffle(2))


def res_blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResBlock(channels) for _ in range(count)))


def bfloat16(enabled: bool, device: torch.device) -> torch.autocast:
    """The context for the convolutions of autoencoder, LPIPS-VGG and DISTS while training or refining; all else stays in float32.

    Does nothing on a processor without bfloat16 instructions, where emulating them takes 12 times as long as float32.
    """
    native = device.type != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and native)
