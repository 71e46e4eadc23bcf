"""What every codec of clips is: the latents of frames that follow one another <-> symbols. Knows no files.

A codec sees one frame at a time and what it chose to remember of the one before, its *state*::

    state = codec.encode(port, latents, state)          # Write or Count
    latents, state = codec.decode(port, h, w, state)    # Read

At an intra frame the state that goes in is None. Encoder and decoder must come to the same state, in integers wherever
it selects probabilities, or the next frame's symbols are not those that were written.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import InputError
from .header import MAX_NUMBER

if TYPE_CHECKING:  # the package of codecs holds codecs of clips too, which begin here
    from ..codecs.base import Codec, LatentCodec
    from ..coder import Port


class ClipCodec(ABC):
    """A codec of clips. intra_period: every so many frames it needs an intra frame."""

    intra_period: int

    @abstractmethod
    def encode(self, port: Port, latents: Tensor, state: Any) -> Any:
        """Pass a frame's latents (1, c, h, w) of any size through Count or Write; returns the state for the next frame."""

    @abstractmethod
    def decode(self, port: Port, height: int, width: int, state: Any) -> tuple[Tensor, Any]:
        """A frame's latents (1, c, height, width) from Read, and the state for the next frame."""

    @abstractmethod
    def symbol_count(self, height: int, width: int, intra: bool) -> int:
        """How many symbols a frame of this size passes."""

    def decoded(self, state: Any) -> Tensor:
        """What a decoder sees of the frame that left a state: latents (1, c, h, w), h and w perhaps larger than the frame's. Asked
        of predicted frames alone."""
        raise NotImplementedError


class FrameByFrame(ClipCodec):
    """Every frame an intra frame, by a codec of pictures' latents."""

    intra_period = 1

    def __init__(self, codec: LatentCodec) -> None:
        self._codec = codec

    def encode(self, port: Port, latents: Tensor, state: None) -> None:
        self._codec.encode(port, latents)

    def decode(self, port: Port, height: int, width: int, state: None) -> tuple[Tensor, None]:
        return self._codec.decode(port, height, width), None

    def symbol_count(self, height: int, width: int, intra: bool) -> int:
        return self._codec.symbol_count(*self._codec.padded(height, width))


def clip_codec(codec: Codec) -> ClipCodec:
    """The codec of a checkpoint as one of clips: itself if it is one, else frame by frame."""
    return codec if isinstance(codec, ClipCodec) else FrameByFrame(codec)


def with_intra_period(codec: ClipCodec, frames: int | None) -> ClipCodec:
    """The codec with an intra frame every so many frames, None: as it is; InputError where that cannot be chosen."""
    if frames is None:
        return codec
    if isinstance(codec, FrameByFrame):
        raise InputError(
            "this codec makes every frame an intra frame; an intra period is for codecs that predict frames"
        )
    if not isinstance(frames, int) or isinstance(frames, bool) or not 1 <= frames <= MAX_NUMBER:
        raise InputError(f"an intra period must be 1 to {MAX_NUMBER} frames, not {frames!r}")
    other = copy.copy(codec)  # loaded codecs are kept and shared
    other.intra_period = frames
    return other
