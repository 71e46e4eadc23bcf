"""Clips <-> files: source -> autoencoder -> codec -> range coder -> records, and back.

A frame is in memory and the next one on its way: what comes first, autoencoder or codec, works on it in a thread of its own.
"""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image
from torch import Tensor

from ..api import _autoencoder, _codec, _codec_of, check_decoded
from ..checkpoints import clip_codec_name
from ..codecs.base import Codec
from ..coder import Read
from ..container import MAX_PIXELS, TILES_TAG
from ..errors import DamagedFile, DecodeMismatch, InputError, LiveError, OutputError
from ..files import replacing, require_regular_file
from ..latents.base import Autoencoder
from ..parallel import ahead
from ..pictures import decode_picture
from ..tiles import Geometry
from .codec import clip_codec, with_intra_period
from .container import MAX_FRAMES, ClipReader, Frame
from .encoder import analysed, encode_clip, header_of, watched
from .header import HOLDS_LATENTS
from .sink import check_clip_output, open_sink
from .source import open_source

if TYPE_CHECKING:
    from typing_extensions import Self

Shown = TypeVar("Shown")


@dataclass(frozen=True)
class ClipSummary:
    """What became of a clip: its frames, size in px (of latents: positions), frames a second, bytes of its file; how many frames
    were lost, which salvage alone allows; and what else is to be known of it, in sentences."""

    frames: int
    width: int
    height: int
    rate: Fraction
    bytes: int
    lost: int = 0
    notes: tuple[str, ...] = ()

    @property
    def bpp(self) -> float:
        """Bits of the file for each pixel (of latents: position) of each frame."""
        return 8 * self.bytes / (self.frames * self.width * self.height)


def compress_clip(
    source: Any,
    output: str | Path,
    quality: float | None = None,
    *,
    codec: str | None = None,
    checkpoint: str | Path | None = None,
    vae: str | Autoencoder | None = None,
    fps: Fraction | str | float | None = None,
    alpha: str | None = None,
    intra_period: int | None = None,
    scene_cuts: bool = True,
    max_pixels: int = MAX_PIXELS,
    verify: bool = False,
    progress: bool = False,
) -> ClipSummary:
    """A clip as a LIVE file, frame by frame; the output takes its name when it is whole, in the place of an older file.

    source, fps, alpha, max_pixels: see ``live.video.source.open_source``; fps is needed where the source has no frame
    rate of its own. Pictures in a row are asked for in another thread. codec: "live_video" where it is embedded, else
    "live_plus", frame by frame. quality, checkpoint, vae: as for ``live.compress``. intra_period: of a codec that predicts
    frames, how many are decoded at most to reach any one of them; the codec's own by default. scene_cuts: make a frame an
    intra frame, too, where that takes fewer bytes than to predict it. verify: decode what was written before it counts.
    progress: on stderr. Raises InputError, ModelError, OutputError, or DecodeMismatch where verify fails.
    """
    output = Path(output)
    if isinstance(source, (str, Path)) and _is_same(Path(source), output):
        raise OutputError(f"{output} is the clip itself; give the output another name")
    chosen = _codec(quality, checkpoint, codec or (clip_codec_name() if checkpoint is None else None))
    coder, autoencoder = with_intra_period(clip_codec(chosen), intra_period), _autoencoder(chosen, vae)
    clip = open_source(source, fps, alpha, max_pixels)
    header, frames = header_of(chosen, coder, autoencoder.identity, clip.properties), analysed(clip, autoencoder)
    with replacing(output) as (file, place):
        std = autoencoder.statistics.std
        count = encode_clip(frames, header, coder, std, file, scene_cuts, clip.count, progress)
        file.flush()
        if verify:
            check_written(lambda: ClipFrames(place, 0, checkpoint, vae, False, max_pixels, sys.maxsize, check=True))
        size = place.stat().st_size
    shape = clip.properties
    return ClipSummary(count, shape.width, shape.height, shape.rate, size, notes=tuple(clip.notes))


def decompress_clip(
    path: str | Path,
    output: str | Path,
    *,
    checkpoint: str | Path | None = None,
    vae: str | Autoencoder | None = None,
    salvage: bool = False,
    lossless: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
    progress: bool = False,
) -> ClipSummary:
    """The clip of a LIVE file as an mp4, a y4m or, where ``output`` has no suffix, a folder of PNGs (``live.video.sink``).

    The file is checked to its end before anything is decoded. salvage: of a damaged one what can be decoded, the last good
    frame in the place of those that cannot. lossless: every decoded frame to the bit. checkpoint, vae: as for
    ``live.decompress``. max_pixels (of a frame), max_frames: more are refused. An older file is replaced. Raises
    NotLiveFile, NewerFormat, UnknownModel, DamagedFile, DecodeMismatch, InputError for a picture's file, OutputError.
    """
    path, output = Path(path), Path(output)
    if _is_same(path, output):
        raise OutputError(f"{output} is the file itself; give the output another name")
    check_clip_output(output, force=True)
    count = 0
    with ClipFrames(path, 0, checkpoint, vae, salvage, max_pixels, max_frames, check=not salvage) as frames:
        shape = frames.header.properties
        with open_sink(output, shape, lossless) as sink:
            for frame in watched(frames, frames.count, progress):
                sink.write(frame)
                count += 1
    size = path.stat().st_size
    return ClipSummary(count, shape.width, shape.height, shape.rate, size, frames.lost, tuple(frames.notes))


def _is_same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def clip_frames(
    path: str | Path,
    start: int = 0,
    *,
    checkpoint: str | Path | None = None,
    vae: str | Autoencoder | None = None,
    salvage: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
) -> ClipFrames:
    """An iterator over the pictures (PIL, RGB, 8 bit) of a clip's LIVE file, from frame ``start`` on.

    It decodes a frame when that is asked for, and its symbols while the one before is used. It raises what
    ``decompress_clip`` does: at once what is wrong with the file as a whole, at its turn what is wrong with a frame.
    """
    return ClipFrames(Path(path), start, checkpoint, vae, salvage, max_pixels, max_frames)


class DecodedClip(Iterator[Shown]):
    """The frames of a clip's file, decoded one at a time, lost ones replaced; what they are shown as is a subclass's.

    ``header.properties`` holds size, frame rate and colour, ``count`` the number of frames of the whole clip (None: its index is
    lost); ``lost`` how many have been replaced so far. To be closed, or a context. check: the file, to its end, first.
    """

    def __init__(
        self,
        path: Path,
        start: int,
        checkpoint: str | Path | None,
        salvage: bool,
        max_pixels: int,
        max_frames: int,
        check: bool = False,
    ) -> None:
        require_regular_file(path)
        self._file, self._salvage = open(path, "rb"), salvage  # noqa: SIM115 - closed with the iterator
        try:
            self._reader = ClipReader(self._file, max_pixels, max_frames, salvage)
            self.header, self.count = self._reader.header, self._reader.count
            if check:
                self._reader.check()
            if not isinstance(start, Integral):
                raise InputError(f"a clip's frames have whole numbers, and {start!r} is none")
            if start < 0 or (self.count is not None and start >= self.count):
                raise InputError(f"{path} has frames 0 to {(self.count or 0) - 1}, and no frame {start}")
            codec, factor = self._load(checkpoint)
            self._reader.check_latents(factor)
        except BaseException:
            self._file.close()
            raise
        clip, share = self.header.properties, 1 if self.header.latents else factor
        self._height, self._width = math.ceil(clip.height / share), math.ceil(clip.width / share)
        self._codec, self.lost, self._first_lost = clip_codec(codec), 0, 0
        self._frames = self._decoded(start)

    def _load(self, checkpoint: str | Path | None) -> tuple[Codec, int]:
        """Whatever the file takes to decode; returns the codec as its checkpoint gives it, and the autoencoder's factor."""
        codec = _codec_of(self.header, checkpoint)
        return codec, codec.card.get("factor", 8)

    @abstractmethod
    def _shown(self, latents: Tensor) -> Shown:
        """What a frame's latents (1, c, h, w) are shown as."""

    def __next__(self) -> Shown:
        return next(self._frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; no frame comes after that."""
        self._frames.close()
        self._file.close()

    @property
    def notes(self) -> list[str]:
        """What salvage found, in sentences, complete once the frames were read."""
        notes = []
        if self.lost:
            which = f"{self.lost}, the first is {self._first_lost}"
            notes.append(f"lost frames: {which}; the nearest good one before stands in the place of each")
        if self.count is None:
            notes.append("the end of the file is lost, and with it how many frames there were")
        return notes

    def _decoded(self, start: int) -> Iterator[Shown]:
        """The frames; of lost ones the one before, and of those before the first whole one, that one."""
        last, before, waiting = None, None, 0
        with closing(ahead(self._read(start))) as frames:
            for number, latents in frames:
                if number < start:
                    before = before if latents is None else latents
                    continue
                if latents is None:
                    self._first_lost = self._first_lost if self.lost else number
                    self.lost += 1
                    latents = before if last is None else None
                last = last if latents is None else self._shown(latents)
                if last is None:
                    waiting += 1
                    continue
                for _ in range(waiting + 1):
                    yield last
                waiting = 0
        if last is None:
            raise DamagedFile("the file is damaged: none of its frames is whole")

    def _read(self, start: int) -> Generator[tuple[int, Tensor | None], None, None]:
        """Number and latents of every frame that decoding from ``start`` on takes; no latents of the lost ones."""
        state, follows = None, False
        for frame in self._reader.frames(start):
            latents = None
            try:
                if frame.stream is None or not (frame.intra or follows):
                    raise DamagedFile("it is lost")
                latents, state = self._latents(frame, None if frame.intra else state)
            except (DamagedFile, DecodeMismatch) as error:
                if not self._salvage:
                    raise type(error)(f"frame {frame.number}: {error}") from None
            follows = latents is not None
            yield frame.number, latents

    def _latents(self, frame: Frame, state: Any) -> tuple[Tensor, Any]:
        port = Read(frame.stream, self._codec.symbol_count(self._height, self._width, frame.intra))
        latents, following = self._codec.decode(port, self._height, self._width, state)
        check_decoded(latents, port.crc, frame.symbols_crc)
        return latents, following


class ClipFrames(DecodedClip[Image.Image]):
    """See ``clip_frames``."""

    def __init__(
        self,
        path: Path,
        start: int,
        checkpoint: str | Path | None,
        vae: str | Autoencoder | None,
        salvage: bool,
        max_pixels: int,
        max_frames: int,
        check: bool = False,
    ) -> None:
        self._vae = vae
        super().__init__(path, start, checkpoint, salvage, max_pixels, max_frames, check)

    def _load(self, checkpoint: str | Path | None) -> tuple[Codec, int]:
        if self.header.latents:
            raise InputError(HOLDS_LATENTS)
        codec, _ = super()._load(checkpoint)
        self._autoencoder = _autoencoder(codec, self._vae, self.header.autoencoder)
        tiles = self.header.sections.get(TILES_TAG)
        self._geometry = None if tiles is None else Geometry.unpack(tiles)
        return codec, self._autoencoder.factor

    def _shown(self, latents: Tensor) -> Image.Image:
        clip = self.header.properties
        return decode_picture(self._autoencoder, latents, (clip.width, clip.height), self._geometry, frame=True)


def check_written(opened: Callable[[], DecodedClip]) -> None:
    """Decode a file that was just written; DecodeMismatch when that fails."""
    try:
        with opened() as frames:
            for _ in frames:
                pass
    except LiveError as error:
        raise DecodeMismatch(f"what was written does not decode ({error}); not kept") from None
