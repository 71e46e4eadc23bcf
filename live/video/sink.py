"""Clips out: frames, one at a time -> an mp4, a y4m or a folder of PNGs, which takes its name when it is whole.

| kind   | default                                             | lossless                              |
|--------|-----------------------------------------------------|---------------------------------------|
| .mp4   | H.264, CRF 14, 8 bit, 4:2:0; 4:4:4 at odd sizes     | H.264, RGB, every bit of every frame  |
| .y4m   | 8 bit, 4:2:0 at every size                          | 10 bit, 4:4:4: RGB comes back exactly |
| folder | PNG: every bit of every frame                       | the same                              |

The matrix and range are those of the clip's source (BT.709, limited, where that was RGB); y4m has no place to name the
matrix. RGB is converted by zimg in floating point and rounded once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from PIL import Image

from ..errors import OutputError
from ..files import check_output, replacing, replacing_folder
from .ffmpeg import Ffmpeg
from .properties import BT709, MATRICES, PRIMARIES, RGB, TRANSFERS, Colour, Properties
from .source import ZIMG_NAMES, range_name

CRF = 14
"""x264's constant quality: no difference is seen, at several times the size of an ordinary film."""
FILE_KINDS = (".mp4", ".y4m")
MAX_ASPECT = 65535
"""Of an aspect's parts in H.264; larger ones come as near as they can."""
_MP4 = ["-movflags", "+faststart", "-f", "mp4"]


class Sink(ABC):
    """Takes a clip's frames in order."""

    @abstractmethod
    def write(self, frame: Image.Image) -> None:
        """One frame, PIL RGB, 8 bit, of the clip's size; OutputError when it cannot be written."""


def check_clip_output(output: Path, force: bool) -> None:
    """Refuse early an output that ``open_sink`` cannot make: an unknown kind, or what is there already."""
    if output.suffix and output.suffix.lower() not in FILE_KINDS:
        raise OutputError(f"no clip format is known for {output.name}; use .mp4, .y4m or, for PNGs, a folder's name")
    if output.suffix or not output.is_dir():
        check_output(output, force and bool(output.suffix))
    elif any(output.iterdir()):
        raise OutputError(f"the folder {output} is not empty; give another name with -o")


@contextmanager
def open_sink(output: Path, properties: Properties, lossless: bool) -> Iterator[Sink]:
    """A sink for a clip, by the output's suffix; what it wrote gets its name when the block ends without an error."""
    if not output.suffix:
        with replacing_folder(output) as folder:
            yield _Folder(folder)
        return
    with replacing(output) as (_, path), Ffmpeg(_arguments(path, output, properties, lossless), writes=True) as ffmpeg:
        sink = _Encoder(ffmpeg, output)
        yield sink
        sink.finish()


class _Folder(Sink):
    """000000.png, 000001.png and so on."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0

    def write(self, frame: Image.Image) -> None:
        frame.save(self._folder / f"{self._count:06d}.png")
        self._count += 1


class _Encoder(Sink):
    """Frames through ffmpeg's standard input."""

    def __init__(self, ffmpeg: Ffmpeg, output: Path) -> None:
        self._ffmpeg, self._output = ffmpeg, output

    def write(self, frame: Image.Image) -> None:
        try:
            self._ffmpeg.process.stdin.write(frame.tobytes())
        except BrokenPipeError:
            self.finish()
            raise self._refusal() from None

    def finish(self) -> None:
        """Wait for the last frame; OutputError in ffmpeg's words when not every one was written."""
        with suppress(BrokenPipeError):  # its exit code says the same
            self._ffmpeg.process.stdin.close()
        if self._ffmpeg.wait():
            raise self._refusal()

    def _refusal(self) -> OutputError:
        return OutputError(f"cannot write {self._output}: {self._ffmpeg.failure or 'ffmpeg ended early'}")


def _arguments(path: Path, output: Path, properties: Properties, lossless: bool) -> list[str]:
    size = f"{properties.width}x{properties.height}"
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-framerate", str(properties.rate), "-i", "pipe:0"]
    if output.suffix.lower() == ".y4m":
        filters = _to_yuv(properties, "yuv444p10" if lossless else "yuv420p")
        kind = ["-strict", "-1", "-f", "yuv4mpegpipe"]  # 10 bits are ffmpeg's own extension
    elif lossless:
        filters = f"format=rgb24,{_tags(replace(properties.colour, matrix=RGB, full_range=True))}"
        kind = [*_MP4, "-c:v", "libx264rgb", "-qp", "0"]
    else:
        odd = properties.width % 2 or properties.height % 2
        filters = _to_yuv(properties, "yuv444p" if odd else "yuv420p")
        kind = [*_MP4, "-c:v", "libx264", "-crf", str(CRF)]
    aspect = f"setsar={properties.aspect.numerator}/{properties.aspect.denominator}:max={MAX_ASPECT}"
    return [*raw, "-vf", f"{filters},{aspect}", *kind, "-y", f"file:{path}"]


def _to_yuv(properties: Properties, pixel_format: str) -> str:
    """ffmpeg's filters from RGB to a YUV format in the clip's colours."""
    colour, (width, height) = properties.colour, (properties.width, properties.height)
    if colour.matrix == RGB:
        colour = replace(colour, matrix=BT709, full_range=False)
    converted = (
        f"zscale=matrix={ZIMG_NAMES[colour.matrix]}:range={range_name(colour)}"
        f":chromal=left:dither=none:filter=lanczos,format={pixel_format}"
    )
    right, bottom = (width % 2, height % 2) if "420" in pixel_format else (0, 0)
    if right or bottom:  # zimg takes whole chroma samples only: extended by the border, then cropped
        extended = f"pad={width + right}:{height + bottom},fillborders=right={right}:bottom={bottom}:mode=smear"
        converted = f"{extended},{converted},crop={width}:{height}:0:0:exact=1"
    return f"format=gbrp,{converted},{_tags(colour)}"


def _tags(colour: Colour) -> str:
    """The filter that makes the file say which colours it is in."""
    tags = {
        "range": "pc" if colour.full_range else "tv",
        "colorspace": MATRICES[colour.matrix],
        "color_primaries": PRIMARIES.get(colour.primaries, "unknown"),
        "color_trc": TRANSFERS.get(colour.transfer, "unknown"),
    }
    return "setparams=" + ":".join(f"{name}={value}" for name, value in tags.items())
