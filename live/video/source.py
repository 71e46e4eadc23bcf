"""Clips in: what ffmpeg reads, a folder of pictures or pictures in a row -> frames, 8-bit RGB, one at a time.

YUV becomes RGB by zimg: by the matrix and range that the stream declares (BT.709, limited, where it declares none),
chroma enlarged by Lanczos from where the stream places it, in floating point, rounded once.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from ..container import MAX_PIXELS
from ..errors import InputError, reason
from ..files import PICTURE_SUFFIXES, files_in, require_regular_file
from ..media import MOVING_FORMATS, as_picture, without_pillows_limit
from .ffmpeg import Ffmpeg
from .header import MAX_NUMBER
from .properties import BT709, MATRICES, PRIMARIES, RGB, TRANSFERS, UNSPECIFIED, Colour, Properties

ZIMG_NAMES = {1: "709", 4: "fcc", 5: "470bg", 6: "170m", 9: "2020_ncl"}
"""What zimg's filter calls the matrices."""

_RATE = re.compile(r"^\[Parsed_showinfo.* config in .*frame_rate: (\d+)/(\d+)")
_FRAME = re.compile(r"^\[Parsed_showinfo.* n: +0 .* fmt:(\w+) cl:(\w+) sar:(\d+)/(\d+) s:(\d+)x(\d+) ")
_COLOUR = re.compile(r"^\[Parsed_showinfo.* color_range:(\S+) color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)")
_INPUT = re.compile(r"^\[info\] Input #0, (\S+), from ")
_PLAYLISTS = ("concat", "hls", "applehttp", "dash", "imf")
"""What ffmpeg calls files that name other files, which it would read in their place."""
_STREAM = re.compile(r"^\[info\] +Stream #0:.*?: (Video|Audio): ")
_RETIMED = re.compile(r"^\[Parsed_fps.* (\d+) frames dropped, (\d+) frames duplicated")
_PACKETS = re.compile(r"Input stream #0:.* \(video\): (\d+) packets read \((\d+) bytes\)")
_RGB_FORMAT = re.compile(r"gbr|rgb|bgr|argb|abgr|0rgb|0bgr|pal8|x2rgb|x2bgr")
_ALPHA = re.compile(r"^\[info\] +alpha_mode +: 1")  # of VP8 and VP9, whose decoders leave it out
_ALPHA_FORMAT = re.compile(r"yuva|gbrap|rgba|bgra|argb|abgr|ya\d|ayuv|vuya")
_PLANAR = re.compile(r"yuv[aj]?(420|422|440|411|410)p(\d*)")
_HALVED = {"420": (2, 2), "422": (2, 1), "440": (1, 2), "411": (4, 1), "410": (4, 4)}
"""Columns and rows of pixels that share a chroma sample."""
STREAM = "0:V:0"
"""The first video stream, but not the cover picture of an audio file."""
_LOCAL = ["-protocol_whitelist", "file,pipe"]
"""A playlist must not make ffmpeg open what is not a file."""


class Source(ABC):
    """A clip to be read once. ``properties``: of every frame; ``notes``: what is not kept of it, in words, complete
    once the frames were read; ``count``: of frames, where it is known before."""

    properties: Properties
    notes: list[str]
    count: int | None = None

    @abstractmethod
    def frames(self) -> Iterator[Image.Image]:
        """Every frame, PIL RGB, 8 bit. Raises InputError when the clip turns out to be damaged or truncated."""


def open_source(
    source: Any, fps: Fraction | str | float | None = None, alpha: str | None = None, max_pixels: int = MAX_PIXELS
) -> Source:
    """Whatever is a clip, as a Source; InputError in words for what is not.

    source: path of a file that ffmpeg reads, or of a folder of pictures (in the order of the numbers in their names), or
    an iterable of pictures (each as ``live.compress`` takes it). fps: frames a second, which a file states itself and the
    others need: a fraction, or text such as "25" or "30000/1001". alpha: a colour to flatten pictures' transparency over.
    max_pixels: larger frames are refused.
    """
    rate = None if fps is None else parse_rate(fps)
    if not isinstance(source, (str, Path)):
        if not isinstance(source, Iterable):
            raise InputError(f"{type(source).__name__} is not a clip; give a path or pictures in a row")
        opened: Source = PictureSource(source, "the clip", rate, alpha, max_pixels)
    elif Path(source).is_dir():
        opened = FolderSource(Path(source), rate, alpha, max_pixels)
    else:
        if rate is not None:
            raise InputError(
                f"{source} is a file; --fps is for folders of pictures and latents, and clips have a rate of their own"
            )
        opened = FileSource(Path(source))
    size = opened.properties
    if size.width * size.height > max_pixels:
        raise InputError(
            f"{source} is {size.width} x {size.height}, over the limit of {max_pixels} pixels; raise it with --max-pixels"
        )
    return opened


def _rate_of_two(path: Path) -> Fraction | None:
    """Frames a second of a moving picture of two frames, for which ffmpeg takes its time base, up to 100,000; None of others."""
    try:
        with without_pillows_limit(), Image.open(path, formats=MOVING_FORMATS) as image:
            if getattr(image, "n_frames", 1) != 2:
                return None
            image.load()
            milliseconds = round(image.info.get("duration", 0))
    except Exception:  # Pillow's readers raise anything on what is no picture, or a damaged one
        return None
    return Fraction(1000, milliseconds) if milliseconds > 0 else None


def parse_rate(fps: Fraction | str | float) -> Fraction:
    """Frames a second as a fraction: 25, 29.97, "30000/1001"; InputError when it is none, or not positive."""
    try:
        rate = Fraction(str(fps))
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{fps!r} is not a frame rate; give frames a second, such as 25 or 30000/1001") from None
    if not 0 < rate <= MAX_NUMBER or max(rate.numerator, rate.denominator) > MAX_NUMBER:
        raise InputError(f"{fps} is not a frame rate; give frames a second, such as 25 or 30000/1001")
    return rate


class PictureSource(Source):
    """Pictures in a row, all of the first one's size. label: how messages call them all."""

    def __init__(
        self, pictures: Iterable[Any], label: str, rate: Fraction | None, alpha: str | None, max_pixels: int
    ) -> None:
        if rate is None:
            raise InputError(f"{label} does not say how many frames a second it has; give it, as in: --fps 25")
        self._label, self._alpha, self._max_pixels = label, alpha, max_pixels
        self._pictures = iter(pictures)
        self._first = self._next()
        if self._first is None:
            raise InputError(f"{label} holds no frames")
        self._first = as_picture(self._first, alpha, max_pixels)
        self.properties = Properties(*self._first.size, rate, colour=Colour(RGB, full_range=True))
        self.notes = []

    def frames(self) -> Iterator[Image.Image]:
        yield self._first
        number = 0
        while (picture := self._next()) is not None:
            number += 1
            image = as_picture(picture, self._alpha, self._max_pixels)
            if image.size != self._first.size:
                name = picture if isinstance(picture, Path) else f"frame {number} of {self._label}"
                first = "{} x {}".format(*self._first.size)
                raise InputError(f"{name} is {image.width} x {image.height}, and the frames before are {first}")
            yield image

    def _next(self) -> Any:
        """The next picture as it was given, None behind the last; what its maker could not read is not the output's failure."""
        try:
            return next(self._pictures, None)
        except OSError as error:
            raise InputError(f"{self._label} could not be read on: {reason(error)}") from None


class FolderSource(PictureSource):
    """The pictures in a folder, in the order of the numbers in their names: 2 before 10."""

    def __init__(self, folder: Path, rate: Fraction | None, alpha: str | None, max_pixels: int) -> None:
        files = files_in(folder, PICTURE_SUFFIXES)
        if not files:
            raise InputError(f"no pictures in {folder}")
        files.sort(key=lambda path: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)])
        super().__init__(files, str(folder), rate, alpha, max_pixels)
        self.count = len(files)


class FileSource(Source):
    """The first video stream of a file that ffmpeg reads."""

    def __init__(self, path: Path) -> None:
        require_regular_file(path)
        self._path = path
        self._heard: dict[str, re.Match[str]] = {}
        self._streams: list[str] = []
        self._playlist = ""
        arguments = [*self._input(), "-map", STREAM, "-vf", "showinfo", "-frames:v", "1", "-f", "null", "-"]
        with Ffmpeg(arguments, hear=self._hear_properties) as ffmpeg:
            crashed = ffmpeg.wait() < 0
        if self._playlist:
            raise InputError(f"{path} is a list of other files ({self._playlist}), not a clip; give one of those")
        if not {"frame", "colour"} <= set(self._heard):
            raise InputError(self._refusal(ffmpeg.failure or ("ffmpeg crashed" if crashed else "no video stream")))
        self._format, self._chroma_place, *numbers = self._heard["frame"].groups()
        aspect_width, aspect_height, width, height = map(int, numbers)
        numerator, denominator = map(int, self._heard["rate"].groups())
        if not numerator or not denominator:
            raise InputError(f"{path} does not say how many frames a second it has; make a folder of pictures of it")
        aspect = Fraction(aspect_width, aspect_height) if aspect_width and aspect_height else Fraction(1)
        rate = _rate_of_two(path) or parse_rate(Fraction(numerator, denominator))
        self.properties = Properties(width, height, rate, aspect, self._colour())
        self.notes = self._notes()

    def _input(self) -> list[str]:
        # "file:", so that no name is taken for a protocol.
        return [*_LOCAL, "-i", f"file:{self._path}", "-fps_mode", "passthrough"]

    def _hear_properties(self, line: str) -> None:
        for name, pattern in (("rate", _RATE), ("frame", _FRAME), ("colour", _COLOUR), ("alpha", _ALPHA)):
            if found := pattern.match(line):
                self._heard.setdefault(name, found)
        if (found := _INPUT.match(line)) and set(found[1].split(",")) & set(_PLAYLISTS):
            self._playlist = found[1]
        if (found := _STREAM.match(line)) and "rate" not in self._heard and "(attached pic)" not in line:
            self._streams.append(found[1])

    def _refusal(self, reason: str) -> str:
        if self._streams and "Video" not in self._streams:
            return f"{self._path} has no video stream, only audio"
        if not self._path.stat().st_size:
            return f"{self._path} is empty (0 bytes)"
        return f"{self._path} is not a clip that can be read ({reason})"

    def _notes(self) -> list[str]:
        notes = []
        if "Audio" in self._streams:
            notes.append("the audio is not kept")
        if self._streams.count("Video") > 1:
            notes.append(f"only the first of its {self._streams.count('Video')} video streams is kept")
        if _ALPHA_FORMAT.match(self._format) or "alpha" in self._heard:
            notes.append("transparency, if it has any, is not kept")
        return notes

    def _colour(self) -> Colour:
        range_name, matrix_name, *others = self._heard["colour"].groups()
        primaries, transfer = (
            next((number for number, known in names.items() if known == name), UNSPECIFIED)
            for name, names in zip(others, (PRIMARIES, TRANSFERS), strict=True)
        )
        if _RGB_FORMAT.match(self._format):
            return Colour(RGB, True, primaries, transfer)
        matrix = next((number for number, known in MATRICES.items() if known == matrix_name and number != RGB), None)
        if matrix is None and matrix_name not in ("unknown", "unspecified", "gbr"):
            raise InputError(f"{self._path} has the colour matrix {matrix_name}, which cannot be converted; use BT.709")
        return Colour(matrix or BT709, range_name == "pc", primaries, transfer)

    def frames(self) -> Iterator[Image.Image]:
        size = (self.properties.width, self.properties.height)
        length, last = 3 * size[0] * size[1], b""
        arguments = ["-xerror", *self._input(), *self._filters(), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
        with Ffmpeg(arguments, reads=True, hear=self._hear_ending) as ffmpeg:
            while len(last := ffmpeg.process.stdout.read(length)) == length:
                yield Image.frombytes("RGB", size, last)
            code = ffmpeg.wait()
        if code or last or ffmpeg.input_failed or self._ends_within_a_frame():
            raise InputError(f"{self._path} is damaged or truncated ({ffmpeg.failure or 'it ends within a frame'})")
        if ffmpeg.failure:
            self.notes.append(f"damage was found and covered up ({ffmpeg.failure})")
        if retimed := self._heard.get("retimed"):
            dropped, repeated = map(int, retimed.groups())
            if dropped or repeated:
                changes = f"{repeated} frames were repeated and {dropped} dropped"
                self.notes.append(f"its frame rate varies: {changes} for a constant {self.properties.rate}")

    def _hear_ending(self, line: str) -> None:
        for name, pattern in (("retimed", _RETIMED), ("packets", _PACKETS)):
            if found := pattern.search(line):
                self._heard[name] = found

    def _filters(self) -> list[str]:
        """ffmpeg's options for a constant frame rate and 8-bit RGB."""
        retime = f"fps={self.properties.rate}:round=near"
        if self.properties.colour.matrix == RGB:
            planar = "format=gbrp|gbrp9|gbrp10|gbrp12|gbrp14|gbrp16"
            return ["-map", STREAM, "-vf", f"{retime},{planar},zscale=dither=none,format=gbrp"]
        colour = self.properties.colour
        place = "left" if self._chroma_place == "unspecified" else self._chroma_place
        to_rgb = (
            f"zscale=matrixin={ZIMG_NAMES[colour.matrix]}:rangein={range_name(colour)}:chromalin={place}"
            ":matrix=gbr:range=full:dither=none:filter=lanczos,format=gbrp"
        )
        return self._padded(retime, to_rgb) or ["-map", STREAM, "-vf", f"{retime},{to_rgb}"]

    def _padded(self, retime: str, to_rgb: str) -> list[str] | None:
        """The options where chroma samples reach beyond the border, which zimg does not take: its luma is extended."""
        found = _PLANAR.match(self._format) or _PLANAR.match(
            {"nv12": "yuv420p", "nv21": "yuv420p"}.get(self._format, "")
        )
        if not found:
            return None
        width, height = self.properties.width, self.properties.height
        wide, high = (-(-side // step) * step for side, step in zip((width, height), _HALVED[found[1]], strict=True))
        if (wide, high) == (width, height):
            return None
        planar = f"yuv{found[1]}p{found[2]}{'le' if found[2] else ''}"
        graph = (
            f"[{STREAM}]{retime},format={planar},extractplanes=y+u+v[y][u][v];[y]pad={wide}:{high}[luma];"
            f"[luma][u][v]mergeplanes=0x001020:{planar},{to_rgb},crop={width}:{height}:0:0:exact=1[rgb]"
        )
        return ["-filter_complex", graph, "-map", "[rgb]"]

    def _ends_within_a_frame(self) -> bool:
        """Whether a y4m file does, of which ffmpeg says nothing."""
        with open(self._path, "rb") as file:
            if not file.readline(256).startswith(b"YUV4MPEG2 ") or "packets" not in self._heard:
                return False
            packets, length = map(int, self._heard["packets"].groups())
            for _ in range(packets):
                file.readline(256)
                file.seek(length // packets, 1)
            return bool(file.read(1))


def range_name(colour: Colour) -> str:
    """What zimg's filter calls a colour's range."""
    return "full" if colour.full_range else "limited"
