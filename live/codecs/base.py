"""What every latent codec is: latents <-> symbols under integer tables, walked once against a port. Knows no files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..coder import Port
from ..container import check_quality
from ..errors import InputError
from ..priors.tables import Tables

if TYPE_CHECKING:
    from typing_extensions import Self


class Coded(NamedTuple):
    """Decoded latents (B, c, h, w) and the estimated bits of the whole batch in y and in z (scalars)."""

    latents: Tensor
    y_bits: Tensor
    z_bits: Tensor


class Codec(ABC):
    """What the codecs of pictures' latents and those of clips share.

    codec_id: stable number written in files, never reused; name: how users and cards call it; stride: h and w are
    padded to a multiple of it (replicating the border) and cropped after decoding; channels: c of the latents; units: of
    the integer arithmetic, int8, where the entropy networks run in ``priors.exact24``.
    """

    codec_id: ClassVar[int]
    name: ClassVar[str]
    stride: ClassVar[int]
    channels: int
    tables: dict[str, Tables]
    units: dict[str, Tensor]
    card: dict[str, Any]
    identity: str

    @property
    @abstractmethod
    def table_rows(self) -> dict[str, int]:
        """The number of rows of every table that symbols are coded under."""

    @abstractmethod
    def make_exact(self) -> None:
        """Make the entropy networks' integer twins of the present weights; ModelError when they allow no proof."""

    @abstractmethod
    def build_tables(self) -> None:
        """Fill ``tables`` and ``units`` from the trained weights and densities; where there are units, round the weights to them.
        Done once, at export."""

    @property
    def highest(self) -> int | None:
        """The highest quality of a codec that holds several rates; None: it holds one rate."""
        return None

    @property
    def middle(self) -> float:
        """The quality to take, of a codec that holds several rates, where none is asked for."""
        return (self.highest or 0) / 2

    def at(self, quality: float) -> Self:
        """The codec, of several rates, at one of them (weights shared); InputError when it does not hold it."""
        raise InputError(f"{self.name} holds one rate a checkpoint; choose another checkpoint instead of a quality")

    def at_byte(self, byte: int) -> Self:
        """The codec at the quality that a file states; DamagedFile when there is none such."""
        check_quality(byte, (self.quality_byte,))
        return self

    @property
    def quality_byte(self) -> int:
        """What a file states as its quality."""
        return self.card.get("quality", 0)

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The size that is coded: both rounded up to a multiple of ``stride``."""
        return -(-height // self.stride) * self.stride, -(-width // self.stride) * self.stride

    def pad(self, latents: Tensor) -> Tensor:
        """Latents (1, c, h, w) at the size that is coded, the border replicated."""
        height, width = latents.shape[2:]
        full_height, full_width = self.padded(height, width)
        return F.pad(latents, (0, full_width - width, 0, full_height - height), mode="replicate")


class LatentCodec(Codec):
    """A codec of latents (1, c, h, w) of one autoencoder. Of several rates it holds all between 0 and ``highest``."""

    @abstractmethod
    def walk(self, port: Port, height: int, width: int, latents: Tensor | None = None) -> Tensor:
        """Pass every symbol of latents (1, c, height, width), sizes multiples of ``stride``, through the port, in order.

        With ``latents`` they are analysed (Count, Write); without, the port supplies the symbols (Read). Returns what
        ``reconstruct`` takes, integers, the same either way.
        """

    @abstractmethod
    def reconstruct(self, decoded: Tensor) -> Tensor:
        """What ``walk`` returned -> latents (1, c, height, width) float32."""

    @abstractmethod
    def estimate(self, latents: Tensor) -> Coded:
        """Differentiable estimate over latents (B, c, h, w), h and w multiples of ``stride``: what training minimises."""

    @abstractmethod
    def symbol_count(self, height: int, width: int) -> int:
        """How many symbols ``walk`` passes for latents of this size."""

    @torch.inference_mode()
    def encode(self, port: Port, latents: Tensor) -> Tensor:
        """Pass latents (1, c, h, w) of any size through Count or Write; returns what ``walk`` does, at the padded size."""
        padded = self.pad(latents)
        return self.walk(port, *padded.shape[2:], padded if self._scale == 1 else padded * self._scale)

    @torch.inference_mode()
    def decode(self, port: Port, height: int, width: int) -> Tensor:
        """Latents (1, c, height, width) from Read."""
        decoded = self.reconstruct(self.walk(port, *self.padded(height, width)))
        return decoded[:, :, :height, :width] / self._scale

    @property
    def _scale(self) -> float:
        """What the codec multiplies latents by: a reference checkpoint was trained before the diffusion scale is applied."""
        return self.card.get("latent_scale", 1.0)


TILE = 256
"""Latent positions along a tile of a codec's floating-point networks."""
EXACT_TILE = 128
"""The same for entropy networks, whose integers and convolutions take more memory a position."""


def flat(symbols: Tensor) -> np.ndarray:
    """Symbols in coding order: a tensor's row-major values, rounded, as int32 (n,)."""
    return torch.round(symbols).to(torch.int64).clamp(-(1 << 30), 1 << 30).to(torch.int32).flatten().numpy()


def channel_indices(channels: int, height: int, width: int) -> np.ndarray:
    """The table row of every symbol of z, (channels * height * width,) int32: its channel."""
    return np.repeat(np.arange(channels, dtype=np.int32), height * width)
