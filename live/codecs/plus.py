"""``live_plus``: our codec. Mean-scale hyperprior with checkerboard context around identity-started transforms.

::

    latents ─ normalise ─ u ─(+ residual g_a)─ x gain ─ y ─ Hyperprior ─ y_hat ─ / gain ─(+ residual g_s)─ denormalise

At initialisation g_a and g_s add nothing and the gain is the inverse of a quantisation step, so training starts from
plain scalar quantisation of the normalised latents, and only has to improve on it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from ..coder import Port
from ..latents.base import Statistics
from ..nets import conv, res_blocks, zero_init
from ..priors.hyper import HYPER_FACTOR, MEAN_PRECISION, ExactHyperprior, Hyperprior, scale_table
from ..priors.hyper24 import Hyper24, choose_units, settle
from ..priors.tables import Tables, factorized_tables, gaussian_tables
from ..tiles import ALIGN, Tiled, halo_of
from .base import TILE, Coded, LatentCodec, channel_indices, flat
from .halves import Prediction, code_halves


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
        self.hyper = Hyperprior(config.channels, config.width, config.z_channels)

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
        y = None if latents is None else self.tiled_analyse(latents)
        z_shape = (1, self.config.z_channels, height // HYPER_FACTOR, width // HYPER_FACTOR)
        z = None if y is None else flat(self._tiled_h_a(y))
        z_symbols = port.code(z, channel_indices(*z_shape[1:]), self.tables["z"])
        z_hat = torch.from_numpy(z_symbols).reshape(z_shape)
        entropy = self._exact_hyper
        prediction = Prediction(
            lambda box: entropy.features(box.of(z_hat)),
            lambda features, _, anchors: entropy.parameters_of(features, anchors),
            lambda: self._exact_halo,
        )
        return code_halves(port, self.tables["y"], prediction, (self.channels, height, width), y)

    def reconstruct(self, decoded: Tensor) -> Tensor:
        return self._tiled_synthesise(decoded)

    def _dequantise(self, y_hat: Tensor) -> Tensor:
        """g_s of y in units of 1 / ``MEAN_PRECISION``, integers."""
        return self.synthesise((y_hat.double() / MEAN_PRECISION).float())

    @cached_property
    def tiled_analyse(self) -> Tiled:
        """``analyse`` in memory that does not grow with the picture."""
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
        settle(self.hyper, self.tables["z"], self.units)
