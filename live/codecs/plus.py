"""``live_plus``: our codec. Mean-scale hyperprior with checkerboard context around identity-started transforms.

::

    latents ─ normalise ─ u ─(+ residual g_a)─ x gain ─ y ─ Hyperprior ─ y_hat ─ / gain ─(+ residual g_s)─ denormalise

At initialisation g_a and g_s add nothing and the gain is the inverse of a quantisation step, so training starts from
plain scalar quantisation of the normalised latents, and only has to improve on it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from ..coder import Port
from ..latents.base import Statistics
from ..nets import conv, res_blocks, zero_init
from ..priors.hyper import HYPER_FACTOR, MEAN_PRECISION, ExactHyperprior, Hyperprior, half, put_half, scale_table
from ..priors.hyper24 import Hyper24, choose_units
from ..priors.tables import Tables, factorized_tables, gaussian_tables
from ..tiles import ALIGN, Box, Tiled, boxes, halo_of
from .base import EXACT_TILE, TILE, Coded, LatentCodec, channel_indices, flat


@dataclass(frozen=True)
class PlusConfig:
    """Sizes: latent channels c; hyperprior width and z channels; width and blocks of g_a and of g_s."""

    channels: int = 16
    width: int = 96
    z_channels: int = 48
    analysis_width: int = 96
    analysis_blocks: int = 1
    synthesis_width: int = 112
    synthesis_blocks: int = 2


def residual_transform(channels: int, width: int, blocks: int) -> nn.Sequential:
    """(B, c, h, w) -> (B, c, h, w), zero at initialisation: what g_a and g_s add to the identity."""
    last = zero_init(conv(width, channels))
    return nn.Sequential(conv(channels, width), res_blocks(width, blocks), nn.ReLU(), last)


def _packed(box: Box) -> Box:
    """Where a box of z's positions lies in a tensor of y's that ``half`` packed."""
    top, bottom, left, right = (side * HYPER_FACTOR for side in box)
    return Box(top, bottom, left // 2, right // 2)


class LivePlus(nn.Module, LatentCodec):
    """The codec at one rate. ``statistics``: of the latents; ``step``: initial quantisation step in standard deviations."""

    codec_id = 2
    name = "live_plus"
    stride = HYPER_FACTOR

    def __init__(self, config: PlusConfig, statistics: Statistics | None = None, step: float = 0.5):
        super().__init__()
        self.config, self.channels = config, config.channels
        self.tables: dict[str, Tables] = {}
        self.units: dict[str, Tensor] = {}
        self.card, self.identity = {"config": asdict(config)}, ""
        shape = (1, config.channels, 1, 1)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))
        if statistics:
            self.set_statistics(statistics)
        self.log_gain = nn.Parameter(torch.full(shape, -torch.log(torch.tensor(step)).item()))
        self.g_a = residual_transform(config.channels, config.analysis_width, config.analysis_blocks)
        self.g_s = residual_transform(config.channels, config.synthesis_width, config.synthesis_blocks)
        self.hyper = Hyperprior(config.channels, config.width, config.z_channels, context=True)

    def set_statistics(self, statistics: Statistics) -> None:
        """Normalise latents by these statistics of their c channels."""
        self.mean.copy_(statistics.mean.reshape(self.mean.shape))
        self.std.copy_(statistics.std.reshape(self.std.shape))

    def analyse(self, latents: Tensor) -> Tensor:
        """g_a: latents (B, c, h, w) -> y (B, c, h, w), to be rounded to integers."""
        u = (latents - self.mean) / self.std
        return (u + self.g_a(u)) * self.log_gain.exp()

    def synthesise(self, y_hat: Tensor) -> Tensor:
        """g_s: decoded y (B, c, h, w) -> latents (B, c, h, w)."""
        u = y_hat / self.log_gain.exp()
        return (u + self.g_s(u)) * self.std + self.mean

    def estimate(self, latents: Tensor) -> Coded:
        """Differentiable estimate over latents (B, c, h, w), h and w multiples of 4."""
        estimate = self.hyper(self.analyse(latents))
        return Coded(self.synthesise(estimate.y_hat), estimate.y_bits, estimate.z_bits)

    def walk(self, port: Port, height: int, width: int, latents: Tensor | None = None) -> Tensor:
        y = None if latents is None else self._tiled_analyse(latents)
        z_shape = (1, self.config.z_channels, height // HYPER_FACTOR, width // HYPER_FACTOR)
        z = None if y is None else flat(self._tiled_h_a(y))
        z_symbols = port.code(z, channel_indices(*z_shape[1:]), self.tables["z"])
        z_hat = torch.from_numpy(z_symbols).reshape(z_shape)
        y_hat = torch.zeros(1, self.channels, height, width, dtype=torch.int32)  # in units of 1 / MEAN_PRECISION
        features: list[Tensor] = []
        for anchors in (True, False):
            means, rows, symbols = self._predicted(z_hat, y_hat, y, anchors, features)
            coded = port.code(symbols, rows.flatten().numpy(), self.tables["y"])
            put_half(y_hat, anchors, torch.from_numpy(coded).reshape(means.shape) * MEAN_PRECISION + means)
        return y_hat

    def reconstruct(self, decoded: Tensor) -> Tensor:
        return self._tiled_synthesise(decoded)

    def _predicted(
        self, z_hat: Tensor, y_hat: Tensor, y: Tensor | None, anchors: bool, features: list[Tensor]
    ) -> tuple[Tensor, Tensor, np.ndarray | None]:
        """A pass's means (1, c, h, w/2) int32 and table rows, uint8, and y's symbols under them, in coding order.

        Tile by tile, since the entropy networks' features are far larger than what they predict. ``features`` keeps those
        of the first pass for the second where the whole is one tile.
        """
        entropy, (rows, columns) = self._exact_hyper, z_hat.shape[2:]
        shape = (1, self.channels, rows * HYPER_FACTOR, columns * HYPER_FACTOR // 2)
        means, indices = torch.empty(shape, dtype=torch.int32), torch.empty(shape, dtype=torch.uint8)
        symbols = None if y is None else torch.empty(shape, dtype=torch.int32)
        tiles = list(boxes(rows, columns, EXACT_TILE // HYPER_FACTOR))
        for box in tiles:
            wide = box if len(tiles) == 1 else box.grown(self._exact_halo, rows, columns)
            seen = features.pop() if features else entropy.features(wide.of(z_hat))
            if len(tiles) == 1 and anchors:
                features.append(seen)
            known = None if anchors else wide.of(y_hat, HYPER_FACTOR)
            predicted = entropy.parameters_of(seen, known)
            tile_means, tile_rows = (_packed(box.within(wide)).of(values) for values in predicted)
            place = _packed(box)
            place.of(means).copy_(tile_means)
            place.of(indices).copy_(tile_rows)
            if symbols is not None:
                offsets = half(box.of(y, HYPER_FACTOR), anchors) - tile_means / MEAN_PRECISION
                place.of(symbols).copy_(torch.from_numpy(flat(offsets)).reshape(offsets.shape))
        return means, indices, None if symbols is None else symbols.flatten().numpy()

    def _dequantise(self, y_hat: Tensor) -> Tensor:
        """g_s of y in units of 1 / ``MEAN_PRECISION``, integers."""
        return self.synthesise((y_hat.double() / MEAN_PRECISION).float())

    @cached_property
    def _tiled_analyse(self) -> Tiled:
        return Tiled(self.analyse, self.channels, 1, 1, TILE)

    @cached_property
    def _tiled_h_a(self) -> Tiled:
        return Tiled(self.hyper.h_a, self.channels, HYPER_FACTOR, 1, TILE // HYPER_FACTOR)

    @cached_property
    def _tiled_synthesise(self) -> Tiled:
        return Tiled(self._dequantise, self.channels, 1, 1, TILE, self.synthesise)

    @cached_property
    def _exact_halo(self) -> int:
        """Cells of h_s, whose floating-point twin shows its field, and of the context: one cell, which is wider than that."""
        return max(ALIGN, halo_of(self.hyper.features, self.config.z_channels, 1, HYPER_FACTOR))

    def make_exact(self) -> None:
        _ = self._exact_hyper

    @cached_property
    def _exact_hyper(self) -> ExactHyperprior | Hyper24:
        return Hyper24(self.hyper, self.units) if self.units else ExactHyperprior(self.hyper)

    def symbol_count(self, height: int, width: int) -> int:
        z_positions = (height // HYPER_FACTOR) * (width // HYPER_FACTOR)
        return self.channels * height * width + self.config.z_channels * z_positions

    @property
    def table_rows(self) -> dict[str, int]:
        return {"y": len(scale_table()), "z": self.config.z_channels}

    def build_tables(self) -> None:
        self.tables = {"y": gaussian_tables(scale_table()), "z": factorized_tables(self.hyper.entropy_bottleneck)}
        self.units = choose_units(self.hyper, self.tables["z"])
