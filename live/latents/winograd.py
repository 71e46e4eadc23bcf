"""3x3 convolutions by Winograd's minimal filtering, F(4x4, 3x3): a quarter of the multiplications (Lavin and Gray, 2016).

For decoding frames of clips, where the autoencoder's convolutions are most of the time: with 128 channels and more a
transform, 36 matrix products and a transform back take two thirds of the library's direct kernel (float32, AVX2). What
comes out differs from that by rounding, some 1e-5 of the largest value, and at a border of its 4x4 tiles depends by rounding on
cells beyond the field of view; so pictures that are to be the same by tiles as whole are not decoded like this.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NARROWEST = 128
"""Fewest channels in and out at which it is the faster one."""
FEWEST = 12
"""Tiles of a picture below which the library's kernel is the faster one again: frames of less than about 100 px."""
TILE, SEEN = 4, 6
"""Results and inputs along a tile's side."""
_B = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_G = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]  # times 1/24
_A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def _both_ways(matrix: list[list[int]]) -> Tensor:
    """A transform of rows and columns at once, on flattened tiles, float64."""
    one_way = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one_way, one_way)


class WinogradConv(nn.Module):
    """The results of a 3x3 convolution with stride 1 and zero padding, (B, C, H, W) -> (B, O, H, W) in channels_last."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.plain = layer
        kernels = layer.weight.detach().double().flatten(2).permute(2, 1, 0)  # (9, C, O)
        self.register_buffer("kernels", torch.einsum("tk,kco->tco", _both_ways(_G) / 576, kernels).float())
        self.register_buffer("bias", layer.bias.detach())
        self.register_buffer("into", _both_ways(_B).float())
        self.register_buffer("back", _both_ways(_A).float())

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        rows, columns = -(-height // TILE), -(-width // TILE)
        if rows * columns < FEWEST:
            return self.plain(x)
        right, below = TILE * columns - width + 1, TILE * rows - height + 1
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below)).contiguous()
        picture, row, column, _ = padded.stride()
        tiles = (SEEN, SEEN, batch, rows, columns, padded.shape[3])
        seen = padded.as_strided(tiles, (row, column, picture, TILE * row, TILE * column, 1))
        transformed = (self.into @ seen.reshape(SEEN * SEEN, -1)).view(SEEN * SEEN, -1, padded.shape[3])
        products = torch.bmm(transformed, self.kernels)
        results = (self.back @ products.flatten(1)).view(TILE, TILE, batch, rows, columns, -1) + self.bias
        laid_out = results.permute(2, 3, 0, 4, 1, 5).reshape(batch, TILE * rows, TILE * columns, -1)
        return laid_out[:, :height, :width].permute(0, 3, 1, 2)


def hastened(network: nn.Module) -> nn.Module:
    """A network of the same layers but for its wide 3x3 convolutions, which are exchanged."""
    if isinstance(network, nn.Conv2d) and _suits(network):
        return WinogradConv(network)
    if not network._modules:
        return network
    twin = copy.copy(network)
    twin._modules = {name: hastened(child) for name, child in network._modules.items()}
    return twin


def _suits(layer: nn.Conv2d) -> bool:
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode)
    wide = min(layer.in_channels, layer.out_channels) >= NARROWEST
    return wide and layer.bias is not None and shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
