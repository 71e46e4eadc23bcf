"""The one interface of every autoencoder: the codec sees latents and their statistics, never the network behind them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..tiles import ALIGN, Network, Tiled

TILE = 2048
"""Pixels along a tile of a picture: larger ones waste less on their halos, smaller ones take less memory."""


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of every latent channel, two float32 tensors of shape (c,)."""

    mean: Tensor
    std: Tensor


class Autoencoder(ABC):
    """A frozen autoencoder. Deterministic: ``encode`` gives the posterior's mode, never a sample.

    name: how the user asked for it; factor: f, pixels a latent position in height and width; channels: c;
    statistics: per channel; identity: hex SHA-256 over the weights and the scale, shift and range conventions.
    Latents are in the autoencoder's *diffusion* convention: scale and shift already applied (once). diffusion_scale: that
    scale; None where each channel has its own.
    """

    name: str
    factor: int
    channels: int
    statistics: Statistics
    identity: str
    diffusion_scale: float | None = 1.0

    @abstractmethod
    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1], H and W multiples of ``factor`` -> latents (B, c, H/f, W/f) float32."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, c, h, w) float32 -> pictures (B, 3, f*h, f*w) float32, clamped to [0, 1]."""

    @abstractmethod
    def reconstruct(self, latents: Tensor) -> Tensor:
        """``decode`` for training: latents (B, c, h, w) -> pictures (B, 3, f*h, f*w), with gradient and not clamped to [0, 1]."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move the networks; what ``encode`` and the others are given must then lie there."""

    def decode_frame(self, latents: Tensor) -> Tensor:
        """``decode`` for a clip's frame in one pass: where there is a faster way it is taken, and pixels may differ by rounding."""
        return self.decode(latents)

    @abstractmethod
    def networks(self) -> tuple[Network, Network]:
        """The bare networks behind ``encode`` and ``decode``, of the same shapes, without checks or conventions."""

    @cached_property
    def tiled_encode(self) -> Tiled:
        """``encode`` by tiles; a cell is a latent position."""
        return Tiled(self.encode, 3, self.factor, 1, self._tile, self.networks()[0])

    @cached_property
    def tiled_decode(self) -> Tiled:
        """``decode`` by tiles; a cell is a latent position."""
        return Tiled(self.decode, self.channels, 1, self.factor, self._tile, self.networks()[1])

    @property
    def _tile(self) -> int:
        return TILE // self.factor // ALIGN * ALIGN


def identity_of(tensors: Mapping[str, Tensor], convention: str) -> str:
    """Hex SHA-256 over tensors (name, dtype, shape, bytes; in name order) and a text that states the conventions."""
    digest = hashlib.sha256(convention.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
