"""Encoding clips: frames -> latents -> streams, and which frames become intra frames."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
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
from .properties import Properties
from .source import Source

Frames = Generator[tuple[Tensor, Geometry | None], None, None]
"""Every frame's latents (1, c, h, w), and the overlapping tiles if such were used."""
RUNAWAY = 4.0
"""Mean squared errors of decoded latents, in their channels' variances, beyond which a prediction has failed: so many times what
leaving out the frame would cost."""


class _Coded(NamedTuple):
    """A frame's stream, the CRC-32 over its symbols, whether it is an intra frame, and the codec's state behind it."""

    stream: bytes
    crc: int
    intra: bool
    state: Any


def analysed(clip: Source, autoencoder: Autoencoder) -> Frames:
    """A clip's frames as latents."""
    return (encode_picture(autoencoder, frame) for frame in clip.frames())


def encode_clip(
    frames: Frames,
    header: ClipHeader,
    coder: ClipCodec,
    std: Tensor,
    file: BinaryIO,
    scene_cuts: bool,
    count: int | None,
    progress: bool,
) -> int:
    """Write a clip's frames and index; returns how many frames there were.

    header: without the tiles, which come with the first frame. std: of the latents' channels (c,). file: binary, open for
    writing. scene_cuts: a frame that takes more bytes to predict than the last intra frame took is coded as one, too, and the
    shorter stream is kept. A frame that cannot be predicted at all is an intra frame in any case. count: of frames, where it
    is known, for progress, on stderr. InputError where the clip holds no frames.
    """
    writer, state, since, dear = None, None, 0, 0
    with closing(ahead(frames)) as coming:
        for latents, geometry in watched(coming, count, progress):
            if writer is None:
                tiles = {TILES_TAG: geometry.pack()} if geometry else {}
                writer = ClipWriter(file, replace(header, sections=tiles))
            predicted = _predicted(coder, latents, state, std) if since % coder.intra_period else None
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


def header_of(
    codec: Codec, coder: ClipCodec, autoencoder: str, properties: Properties, latents: bool = False
) -> ClipHeader:
    """What a clip's file says before its frames. codec, coder: the codec as its checkpoint gives it, and as one of clips.
    autoencoder: its identity. latents: the frames are these, not pictures."""
    return ClipHeader(
        codec_id=codec.codec_id,
        model=bytes.fromhex(codec.identity)[:8],
        autoencoder=bytes.fromhex(autoencoder)[:4].ljust(4, b"\0"),
        quality=codec.quality_byte,
        properties=properties,
        intra_period=coder.intra_period,
        latents=latents,
    )
