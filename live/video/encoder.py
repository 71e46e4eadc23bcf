"""Encoding clips: frames -> latents -> streams, and which frames become intra frames."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any, BinaryIO, NamedTuple

from torch import Tensor
from tqdm import tqdm

from ..codecs.base import Codec
from ..coder import Write
from ..container import TILES_TAG
from ..errors import InputError
from ..latents.base import Autoencoder
from ..parallel import Item, ahead
from ..pictures import encode_picture
from ..tiles import Geometry
from .codec import ClipCodec
from .container import ClipWriter
from .header import ClipHeader
from .source import Source

RUNAWAY = 4.0
"""Mean squared errors of decoded latents, in their channels' variances, beyond which a prediction has failed: so many times what
leaving out the frame would cost."""


class _Coded(NamedTuple):
    """A frame's stream, the CRC-32 over its symbols, whether it is an intra frame, and the codec's state behind it."""

    stream: bytes
    crc: int
    intra: bool
    state: Any


def encode_clip(
    clip: Source,
    codec: Codec,
    coder: ClipCodec,
    autoencoder: Autoencoder,
    file: BinaryIO,
    scene_cuts: bool,
    progress: bool,
) -> int:
    """Write a clip's frames and index; returns how many frames there were.

    codec, coder: the codec as its checkpoint gives it, and as one of clips. file: binary, open for writing. scene_cuts: a
    frame that takes more bytes to predict than the last intra frame took is coded as one, too, and the shorter stream is
    kept. A frame that cannot be predicted at all is an intra frame in any case. progress: on stderr. InputError where the clip
    holds no frames.
    """
    writer, state, since, dear = None, None, 0, 0
    analysed = (encode_picture(autoencoder, frame) for frame in clip.frames())
    with closing(ahead(analysed)) as frames:
        for latents, geometry in watched(frames, clip.count, progress):
            if writer is None:
                writer = ClipWriter(file, _header(clip, codec, coder.intra_period, autoencoder, geometry))
            predicted = (
                _predicted(coder, latents, state, autoencoder.statistics.std) if since % coder.intra_period else None
            )
            coded = predicted or _coded(coder, latents, None)
            if scene_cuts and predicted and len(predicted.stream) > dear:
                coded = min(predicted, _coded(coder, latents, None), key=lambda each: len(each.stream))
            if coded.intra:
                since, dear = 0, len(coded.stream)
            writer.add(coded.stream, coded.crc, coded.intra)
            state, since = coded.state, since + 1
    if writer is None:
        raise InputError("the clip holds no frames")
    writer.finish()
    return writer.count


def _predicted(coder: ClipCodec, latents: Tensor, state: Any, std: Tensor) -> _Coded | None:
    """A frame as predicted from the one before; None where the networks run away, as products of features can on a frame that is
    unlike all that was trained on: symbols out of bounds, or decoded latents that are far worse than none."""
    try:
        coded = _coded(coder, latents, state)
    except InputError:  # an intra frame's refusal is the one to be heard
        return None
    height, width = latents.shape[2:]
    error, size = (
        ((values / std.reshape(-1, 1, 1)) ** 2).mean().item()
        for values in (coder.decoded(coded.state)[:, :, :height, :width] - latents, latents)
    )
    return coded if error <= RUNAWAY * (1 + size) else None  # not either where it is not a number


def _coded(coder: ClipCodec, latents: Tensor, state: Any) -> _Coded:
    port = Write()
    following = coder.encode(port, latents, state)
    return _Coded(port.stream(), port.crc, state is None, following)


def watched(frames: Iterator[Item], count: int | None, progress: bool) -> Iterator[Item]:
    """The frames, under a progress bar that is gone when the work is done: what is to be said then is said in lines."""
    return tqdm(frames, total=count, unit="frame", leave=False, file=sys.stderr, disable=not progress)


def _header(
    clip: Source, codec: Codec, intra_period: int, autoencoder: Autoencoder, geometry: Geometry | None
) -> ClipHeader:
    return ClipHeader(
        codec_id=codec.codec_id,
        model=bytes.fromhex(codec.identity)[:8],
        autoencoder=bytes.fromhex(autoencoder.identity)[:4],
        quality=codec.quality_byte,
        properties=clip.properties,
        intra_period=intra_period,
        sections={TILES_TAG: geometry.pack()} if geometry else {},
    )
