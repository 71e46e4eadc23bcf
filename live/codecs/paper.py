"""``live_paper``: the codec of the LIVE reference (NETINT-Technologies/liveCompress), to the letter.

CompressAI's ``ScaleHyperprior`` (Balle et al. 2018) with N = 24, M = 36; g_a is one 5x5 stride-2 convolution c -> 36 and
g_s one transposed convolution back: no GDN, no non-linearity. y has 36 channels at half the latents' size, z 24 at an
eighth. For c = 4 the state dict holds 82,019 values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..borrowed import ScaleHyperprior, conv, deconv
from ..coder import Port
from ..errors import ModelError
from ..priors.exact import LIMIT, UNIT, exact, to_fixed
from ..priors.tables import Tables, factorized_tables, gaussian_tables
from ..tiles import Tiled
from .base import EXACT_TILE, TILE, Coded, LatentCodec, channel_indices, flat

SCALES = tuple(float(np.exp(x)) for x in np.linspace(np.log(0.11), np.log(256), 64))
"""CompressAI's default scale table: 64 standard deviations, log-spaced from 0.11 to 256."""


def _thresholds() -> tuple[int, ...]:
    """All of ``SCALES`` but the last in fixed point, by decimal arithmetic, whose digits are the same everywhere."""
    low, high = Decimal("0.11").ln(), Decimal(256).ln()
    return tuple(round((low + (high - low) * k / 63).exp() * UNIT) for k in range(63))


THRESHOLDS = _thresholds()
"""A scale selects the first row whose threshold is not below it."""

_LEGACY = re.compile(r"^entropy_bottleneck\._(matrix|bias|factor)(\d)$")
_PLURAL = {"matrix": "matrices", "bias": "biases", "factor": "factors"}
_BUILT = ("_quantized_cdf", "_cdf_length", "_offset", "scale_table")


@dataclass(frozen=True)
class PaperConfig:
    """Latent channels c; N of the hyperprior; M channels of y."""

    channels: int = 4
    n: int = 24
    m: int = 36


class LivePaper(ScaleHyperprior, LatentCodec):
    """The published codec for latents of c channels."""

    codec_id = 1
    name = "live_paper"
    stride = 8

    def __init__(self, config: PaperConfig):
        super().__init__(config.n, config.m)
        self.g_a = nn.Sequential(conv(config.channels, config.m))
        self.g_s = nn.Sequential(deconv(config.m, config.channels))
        self.config, self.channels = config, config.channels
        self.tables: dict[str, Tables] = {}
        self.units: dict[str, Tensor] = {}
        self.card, self.identity = {"config": asdict(config)}, ""

    def load_state_dict(self, state: Mapping[str, Tensor], strict: bool = True) -> Any:
        """CompressAI's insists on CDF buffers; ours are kept in ``tables``, so its own stay empty and may be missing."""
        built = {name: value for name, value in self.state_dict().items() if name.endswith(_BUILT)}
        return nn.Module.load_state_dict(self, built | dict(state), strict=strict)

    def estimate(self, latents: Tensor) -> Coded:
        """Differentiable estimate over latents (B, c, h, w), h and w multiples of 8; ``forward`` is CompressAI's own."""
        out = self(latents)
        y_bits, z_bits = (-torch.log2(out["likelihoods"][name]).sum() for name in ("y", "z"))
        return Coded(out["x_hat"], y_bits, z_bits)

    def walk(self, port: Port, height: int, width: int, latents: Tensor | None = None) -> Tensor:
        medians = self.entropy_bottleneck.quantiles[:, 0, 1].reshape(1, -1, 1, 1)
        y = None if latents is None else self._tiled["g_a"](latents)
        z = None if y is None else flat(self._tiled["h_a"](y) - medians)
        z_shape = (1, self.config.n, height // 8, width // 8)
        symbols = port.code(z, channel_indices(*z_shape[1:]), self.tables["z"])
        indices = self._tiled["rows"](torch.from_numpy(symbols).reshape(z_shape))
        coded = port.code(None if y is None else flat(y), indices.flatten().numpy(), self.tables["y"])
        return torch.from_numpy(coded).reshape(indices.shape)

    def reconstruct(self, decoded: Tensor) -> Tensor:
        return self._tiled["g_s"](decoded)

    @cached_property
    def _tiled(self) -> dict[str, Tiled]:
        """The networks by tiles, in cells of 8 x 8 latent positions, one of z and 4 x 4 of y."""
        config, core, exact_core = self.config, TILE // 8, EXACT_TILE // 8
        return {
            "g_a": Tiled(self.g_a, config.channels, 8, 4, core),
            "h_a": Tiled(lambda y: self.h_a(torch.abs(y)), config.m, 4, 1, core),
            "rows": Tiled(self._rows, config.n, 1, 4, exact_core, self.h_s),
            "g_s": Tiled(lambda symbols: self.g_s(symbols.float()), config.m, 4, 8, core),
        }

    def _rows(self, symbols: Tensor) -> Tensor:
        """Symbols of z, integers -> table rows of y, uint8."""
        medians = to_fixed(self.entropy_bottleneck.quantiles[:, 0, 1].reshape(1, -1, 1, 1))
        scales = self._exact_h_s((symbols.double() * UNIT + medians).clamp(-LIMIT, LIMIT))
        return torch.searchsorted(torch.tensor(THRESHOLDS, dtype=torch.float64), scales.contiguous()).to(torch.uint8)

    def make_exact(self) -> None:
        if self.units:
            raise ModelError("live_paper has no units of integers; its checkpoint was altered")
        _ = self._exact_h_s

    @cached_property
    def _exact_h_s(self) -> nn.Module:
        return exact(self.h_s)

    def symbol_count(self, height: int, width: int) -> int:
        return self.config.m * (height // 2) * (width // 2) + self.config.n * (height // 8) * (width // 8)

    @property
    def table_rows(self) -> dict[str, int]:
        return {"y": len(SCALES), "z": self.config.n}

    def build_tables(self) -> None:
        self.tables = {"y": gaussian_tables(list(SCALES)), "z": factorized_tables(self.entropy_bottleneck)}


def reference_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A reference checkpoint's ``state_dict`` under today's CompressAI names.

    The prefix ``module.`` is dropped, the entropy bottleneck's older names (``_matrix0``) are mapped, and CDF tables
    that the checkpoint may carry are left out: ours are built from the densities.
    """
    renamed = {}
    for key, value in state.items():
        key = _LEGACY.sub(lambda m: f"entropy_bottleneck.{_PLURAL[m[1]]}.{m[2]}", key.removeprefix("module."))
        if not key.endswith(_BUILT):
            renamed[key] = value
    return renamed
