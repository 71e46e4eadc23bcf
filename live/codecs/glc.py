"""``glc``: transform coding of a VQ autoencoder's continuous latents, every rate between its anchors in one model.

Sources: Jia et al. 2024, "Generative Latent Coding for Ultra-Low Bitrate Image Compression", and its extension
(arXiv 2512.20194, 2505.16177); shapes of jzyustc/GLC. y has the latents' size; the transforms' rates are learned vectors
of a gain per channel in their middle, one an anchor, and between anchors their geometric interpolation.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn

from ..coder import SYMBOL_LIMIT, Port
from ..container import RATE_STEPS, check_quality, rate_bytes
from ..depthconv import gated_block
from ..errors import ConfigError, InputError, ModelError
from ..nets import zero_init
from ..priors.exact import UNIT
from ..priors.fourpart import HYPER_FACTOR, PASSES, Estimate, ExactFourPart, FourPart, put_quarter, quarter
from ..priors.hyper import MEAN_PRECISION, scale_table
from ..priors.tables import Tables, categorical_tables, factorized_tables, gaussian_tables
from ..tiles import Tiled
from .base import EXACT_TILE, TILE, Coded, LatentCodec, channel_indices, flat

MOST_RATES = 1 + 254 // RATE_STEPS


@dataclass(frozen=True)
class GlcConfig:
    """channels: N, of the latents and of y; codebook: entries of the categorical hyper module (0: factorised instead);
    blocks: of the spatial prior; transform_blocks: on either side of the gains; rates: anchors; identity: transforms that
    start as the identity.

    The published shape is the default; identity start is ours.
    """

    channels: int = 256
    codebook: int = 16384
    blocks: int = 3
    transform_blocks: int = 2
    rates: int = 4
    identity: bool = False

    def __post_init__(self) -> None:
        rules = {
            f"channels must be a multiple of {PASSES}": self.channels > 0 and self.channels % PASSES == 0,
            f"codebook must be 0 to {SYMBOL_LIMIT}, what a symbol may be": 0 <= self.codebook <= SYMBOL_LIMIT,
            "blocks must be 1 or more": self.blocks >= 1,
            f"rates must be 1 to {MOST_RATES}, what a file's byte can state": 1 <= self.rates <= MOST_RATES,
        }
        for rule, holds in rules.items():
            if not holds:
                raise ConfigError(f"{rule} in glc, not as in {self}")


class Transform(nn.Module):
    """(B, N, h, w) -> the same size: blocks, the gains of a rate, blocks."""

    def __init__(self, config: GlcConfig):
        super().__init__()
        n = config.channels
        self.before = nn.Sequential(*(gated_block(n) for _ in range(config.transform_blocks)))
        self.after = nn.Sequential(*(gated_block(n) for _ in range(config.transform_blocks)))
        self.log_gain = nn.Parameter(torch.zeros(config.rates, n))
        if config.identity:
            for block in (*self.before, *self.after):
                for part in block:
                    zero_init(part.last)

    def forward(self, x: Tensor, rate: float, offset: Tensor | float = 0.0) -> Tensor:
        """rate: 0 (the first anchor) to rates - 1; offset: N values, or one, added to the gains' logarithms."""
        low = min(int(rate), len(self.log_gain) - 2) if len(self.log_gain) > 1 else 0
        share = rate - low
        log_gain = self.log_gain[low]
        if share:
            log_gain = log_gain + share * (self.log_gain[low + 1] - log_gain)
        return self.after(self.before(x) * (log_gain + offset).exp()[:, None, None])


class Glc(nn.Module, LatentCodec):
    """The codec. ``rate``: the one that ``walk`` and ``estimate`` use, 0 to rates - 1; ``at`` gives the codec at another."""

    codec_id = 3
    name = "glc"
    stride = HYPER_FACTOR

    def __init__(self, config: GlcConfig):
        super().__init__()
        self.config, self.channels, self.rate = config, config.channels, 0.0
        self.tables: dict[str, Tables] = {}
        self.units: dict[str, Tensor] = {}
        self.card, self.identity = {"config": asdict(config)}, ""
        self.g_a, self.g_s = Transform(config), Transform(config)
        self.prior = FourPart(config.channels, config.codebook, config.blocks)

    @property
    def highest(self) -> int:
        return self.config.rates - 1

    def at(self, quality: float) -> Glc:
        """The same codec (weights shared) at a rate, 0 (lowest) to ``highest``, rounded to 1 / ``RATE_STEPS``."""
        number = isinstance(quality, Real) and not isinstance(quality, bool)
        if not number or not 0 <= quality <= self.highest:
            raise InputError(
                f"unknown quality {quality!r} of {self.name}; choose from 0 to {self.highest}, fractions too"
            )
        return self.at_rate(round(quality * RATE_STEPS) / RATE_STEPS)

    def at_rate(self, rate: float) -> Glc:
        """The same codec (weights shared) at exactly this rate, 0 to ``highest``, which a file's byte need not be able to state."""
        other = copy.copy(self)
        other.rate = rate
        return other

    @property
    def quality_byte(self) -> int:
        return 1 + round(self.rate * RATE_STEPS)

    def at_byte(self, byte: int) -> Glc:
        check_quality(byte, rate_bytes(self.highest * RATE_STEPS))
        return self.at((byte - 1) / RATE_STEPS)

    def estimated(self, latents: Tensor, rate: float) -> tuple[Tensor, Estimate]:
        """What training minimises: decoded latents (B, N, h, w) and the estimate of their bits."""
        estimate = self.prior(self.g_a(latents, rate))
        return self.g_s(estimate.y_hat, rate), estimate

    def estimate(self, latents: Tensor) -> Coded:
        """Differentiable estimate over latents (B, N, h, w), h and w multiples of 4."""
        decoded, estimate = self.estimated(latents, self.rate)
        return Coded(decoded, estimate.y_bits, estimate.z_bits)

    def walk(self, port: Port, height: int, width: int, latents: Tensor | None = None) -> Tensor:
        first, later = self._exact
        y = None if latents is None else self._tiled_g_a(latents)
        z = self._coded_z(port, height // HYPER_FACTOR, width // HYPER_FACTOR, y)
        steps, means, rows, reduced = first(z).chunk(4, 1)
        steps = steps.float() / UNIT
        u = None if y is None else y / steps
        u_hat = torch.zeros(1, self.channels, height, width, dtype=torch.int32)  # in units of 1 / MEAN_PRECISION
        for number in range(PASSES):
            if number:
                means, rows = later[number - 1](torch.cat([u_hat, reduced], 1)).chunk(2, 1)
            means, rows = quarter(means, number), quarter(rows, number)
            symbols = None if u is None else flat(quarter(u, number) - means / MEAN_PRECISION)
            coded = port.code(symbols, rows.flatten().numpy(), self.tables["y"])
            put_quarter(u_hat, number, torch.from_numpy(coded).reshape(means.shape) * MEAN_PRECISION + means)
        return (u_hat.double() / MEAN_PRECISION).float() * steps

    def _coded_z(self, port: Port, rows: int, columns: int, y: Tensor | None) -> Tensor:
        """Pass z's symbols through the port: (1, 1, rows, columns) numbers of entries, or (1, N, rows, columns)."""
        z = None if y is None else self._tiled_h_a(y)
        categorical = self.prior.categorical
        if categorical is not None:
            shape, indices = (1, 1, rows, columns), np.zeros(rows * columns, np.int32)
            symbols = None if z is None else categorical.indices(z).flatten().numpy()
        else:
            shape, indices = (1, self.channels, rows, columns), channel_indices(self.channels, rows, columns)
            symbols = None if z is None else flat(z)
        coded = port.code(symbols, indices, self.tables["z"])
        return torch.from_numpy(coded.astype(np.int64)).reshape(shape)

    def reconstruct(self, decoded: Tensor) -> Tensor:
        return self._tiled_g_s(decoded)

    @property
    def _tiled_g_a(self) -> Tiled:
        return Tiled(lambda x: self.g_a(x, self.rate), self.channels, 1, 1, TILE)

    @property
    def _tiled_h_a(self) -> Tiled:
        return Tiled(self.prior.h_a, self.channels, HYPER_FACTOR, 1, TILE // HYPER_FACTOR)

    @property
    def _tiled_g_s(self) -> Tiled:
        return Tiled(lambda x: self.g_s(x, self.rate), self.channels, 1, 1, TILE)

    def make_exact(self) -> None:
        if self.units:
            raise ModelError("glc has no units of integers; its checkpoint was altered")
        _ = self._exact

    @cached_property
    def _exact(self) -> tuple[Tiled, list[Tiled]]:
        """``ExactFourPart`` by tiles: ``first`` and, for passes 1 to 3, ``later``. Their floating-point twins show the fields."""
        exact, prior, n = ExactFourPart(self.prior), self.prior, self.channels
        first = Tiled(
            exact.first, n, 1, HYPER_FACTOR, EXACT_TILE // HYPER_FACTOR, lambda z_hat: prior.fusion(prior.h_s(z_hat))
        )
        return first, [
            Tiled(partial(exact.later, number), 2 * n, 1, 1, EXACT_TILE, nn.Sequential(adaptor, prior.spatial))
            for number, adaptor in enumerate(prior.adaptors)
        ]

    def symbol_count(self, height: int, width: int) -> int:
        z_channels = self.channels if self.prior.categorical is None else 1
        return self.channels * height * width + z_channels * (height // HYPER_FACTOR) * (width // HYPER_FACTOR)

    @property
    def table_rows(self) -> dict[str, int]:
        return {"y": len(scale_table()), "z": self.channels if self.prior.categorical is None else 1}

    def build_tables(self) -> None:
        categorical, factorised = self.prior.categorical, self.prior.factorised
        z = factorized_tables(factorised) if categorical is None else categorical_tables(categorical.usage)
        self.tables = {"y": gaussian_tables(scale_table()), "z": z}
