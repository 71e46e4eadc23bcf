"""What the codecs of clips share: intra frames are a codec of pictures', predicted frames are coded given the one before.

There are no motion vectors. A predicted frame's symbols are coded under what integer networks make of the previous
frame's decoded y, which is exact; its latents may also use the previous decoded latents, which are floats and shape
nothing but pixels::

    y_hat of frame t-1 (exact) ── integer networks ── steps, means, table rows of frame t's symbols
    latents of frame t-1 (float) ── transforms ── latents of frame t
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ...coder import Port
from ...errors import ModelError
from ...video.codec import ClipCodec
from ..base import Codec, LatentCodec

INTRA_PERIOD = 96


class State(NamedTuple):
    """What a frame leaves to the next one, at the padded size: the decoded y as ``walk`` or ``walk_predicted`` gives it, exact;
    the decoded latents (1, c, h, w) float32; how many frames ago the last intra frame was, 0 for itself."""

    y_hat: Tensor
    latents: Tensor
    position: int


class FrameEstimate(NamedTuple):
    """A frame of ``rollout``: decoded latents (B, c, h, w); estimated bits of the batch in y and in z; the quantiser's loss
    (all three scalars)."""

    latents: Tensor
    y_bits: Tensor
    z_bits: Tensor
    vq_loss: Tensor


class VideoCodec(nn.Module, Codec, ClipCodec):
    """A codec of clips over released codecs of pictures, ``images``, which ``attach`` gives it and which stay as they are.

    picture_kind: the class of ``images``; they are no part of the state dict. intra_period: every so many frames the encoder
    makes an intra frame; a decoder needs none of it.
    """

    picture_kind: ClassVar[type[LatentCodec]]
    config: Any
    intra_period = INTRA_PERIOD

    def __init__(self, channels: int, card: dict[str, Any]):
        super().__init__()
        self.channels, self.card, self.identity = channels, card, ""
        self.tables, self.units = {}, {}
        self.images: tuple[LatentCodec, ...] = ()

    def attach(self, images: Sequence[LatentCodec]) -> None:
        """Code intra frames by these codecs of pictures, ascending in rate; ModelError when they do not fit."""
        for image in images:
            if not isinstance(image, self.picture_kind):
                raise ModelError(f"{self.name} codes intra frames by {self.picture_kind.name}, not by {image.name}")
            if (image.channels, image.stride) != (self.channels, self.stride):
                raise ModelError(
                    f"{self.name} is for {self.channels} latent channels, {image.name} for {image.channels}"
                )
        if len({image.card.get("autoencoder") for image in images}) != 1:
            raise ModelError(f"{self.name} codes intra frames by codecs of one autoencoder")
        self.images = tuple(images)

    def start_from(self, *images: LatentCodec) -> None:
        """``attach`` these, and begin from their weights, before any training."""
        self.attach(images)

    @property
    @abstractmethod
    def picture(self) -> LatentCodec:
        """The codec of intra frames at the present quality."""

    @abstractmethod
    def walk_predicted(self, port: Port, height: int, width: int, state: State, latents: Tensor | None = None) -> State:
        """Pass every symbol of a predicted frame through the port, as ``LatentCodec.walk`` does; the state that follows."""

    @abstractmethod
    def predicted_symbols(self, height: int, width: int) -> int:
        """How many symbols ``walk_predicted`` passes."""

    @abstractmethod
    def rollout(self, latents: Tensor, rate: int) -> list[FrameEstimate]:
        """Differentiable estimates of T frames in a row, latents (B, T, c, h, w), h and w multiples of ``stride``.

        Frame 0 is an intra frame, by ``images`` at anchor ``rate``, without gradients; every other one is predicted from the
        decoded one before, differentiable through time.
        """

    @torch.inference_mode()
    def encode(self, port: Port, latents: Tensor, state: State | None) -> State:
        padded = self.pad(latents)
        return self._coded(port, *padded.shape[2:], state, padded)

    @torch.inference_mode()
    def decode(self, port: Port, height: int, width: int, state: State | None) -> tuple[Tensor, State]:
        following = self._coded(port, *self.padded(height, width), state)
        return following.latents[:, :, :height, :width], following

    def _coded(self, port: Port, height: int, width: int, state: State | None, latents: Tensor | None = None) -> State:
        if state is not None:
            return self.walk_predicted(port, height, width, state, latents)
        y_hat = self.picture.walk(port, height, width, latents)
        return State(y_hat, self.picture.reconstruct(y_hat), 0)

    def decoded(self, state: State) -> Tensor:
        return state.latents

    def symbol_count(self, height: int, width: int, intra: bool) -> int:
        size = self.padded(height, width)
        return self.picture.symbol_count(*size) if intra else self.predicted_symbols(*size)
