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
    kept. progress: on stderr. InputError where the clip holds no frames.
    """
    writer, state, since, dear = None, None, 0, 0
    analysed = (encode_picture(autoencoder, frame) for frame in clip.frames())
    with closing(ahead(analysed)) as frames:
        for latents, geometry in watched(frames, clip.count, progress):
            if writer is None:
                writer = ClipWriter(file, _header(clip, codec, coder.intra_period, autoencoder, geometry))
            coded = _coded(coder, latents, state if since % coder.intra_period else None)
            if scene_cuts and not coded.intra and len(coded.stream) > dear:
                coded = min(coded, _coded(coder, latents, None), key=lambda each: len(each.stream))
            if coded.intra:
                since, dear = 0, len(coded.stream)
            writer.add(coded.stream, coded.crc, coded.intra)
            state, since = coded.state, since + 1
    if writer is None:
        raise InputError("the clip holds no frames")
    writer.finish()
    return writer.count


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
