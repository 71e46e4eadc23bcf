"""The peers that our codecs of clips are measured against: frames -> a real file -> frames, by ffmpeg's encoders.

| name         | codec    | structure                               | depth  | setting, from low to high rate | stream          |
|--------------|----------|-----------------------------------------|--------|--------------------------------|-----------------|
| x264_ld, _ra | x264     | medium; ld: no B frames                 | 8 bit  | CRF, falling                   | Annex B         |
| x265_ld, _ra | x265     | medium; ld: no B frames                 | 10 bit | CRF, falling                   | Annex B         |
| svtav1_ld, _ra | SVT-AV1 | preset 6; ld: its low-delay prediction | 10 bit | CRF, falling                   | OBUs            |
| vvc_ld, _ra  | VVenC    | fast; ld: no reordering, groups of 8    | 10 bit | QP, falling (adaptation off)   | Annex B         |

Low delay (ld): frames are coded in the order in which they are shown, each from earlier ones; random access (ra): the
encoder's own structure with frames coded out of order. The first frame is the only intra frame, scene cuts included.
x264 and x265 keep the lookahead of their preset, so "zerolatency" is not set: that would only cost them rate.

All are 4:2:0. Frames are RGB, converted by zimg to BT.709 in limited range with rounding and Lanczos chroma filters, and
back, as for the pictures' anchors. A file is one byte, the padding in columns (high four bits) and rows (low four bits),
and the raw stream. The stream has no container; what frames it is counted: start codes (4 bytes a frame), the parameter
sets, in AV1 a temporal delimiter (2 bytes a frame). The text in which x264 and x265 name their settings is left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from PIL import Image

from live.errors import ModelError
from live.files import write_atomic
from live.video.ffmpeg import Ffmpeg

from .anchors import _ffmpeg, _replicated

SMALLEST = 16
"""Shortest side in px that is coded; smaller frames are padded."""
_TO_YUV = "format=gbrp,zscale=matrix=709:range=limited:chromal=left:dither=none:filter=lanczos,format={}"
_TO_RGB = (
    "zscale=matrixin=709:rangein=limited:chromalin=left:matrix=gbr:range=full:dither=none:filter=lanczos,"
    "format=gbrp,format=rgb24"
)


class ClipPeer(Protocol):
    """A codec of clips under test, a peer or ours.

    name: how tables and the command line call it; label: for figures; suffix: of its files; settings: numbers in order of
    rate, low to high; runs_programs: that it decodes in a process of its own.
    """

    name: str
    label: str
    suffix: str
    runs_programs: bool

    @property
    def settings(self) -> tuple[float, ...]: ...

    def encode(self, frames: Iterable[Image.Image], rate: Fraction, path: Path, setting: float) -> None:
        """Frames (PIL RGB, 8 bit, one size) at ``rate`` a second as a complete file. ModelError when that fails."""

    def decode(self, path: Path) -> Iterator[Image.Image]:
        """The frames of a file, PIL RGB, 8 bit, of the original size."""

    def frame_bytes(self, path: Path) -> list[int] | None:
        """Bytes of each frame in the order in which they are shown; None where they are coded in another."""


@dataclass(frozen=True)
class ClipAnchor:
    """One encoder of ffmpeg at one prediction structure, as a ``ClipPeer``.

    encoder: ffmpeg's name; form: of its raw streams; pixels: pixel format that is coded; options: ffmpeg's, {} being the
    setting; low_delay: that frames are coded in the order in which they are shown.
    """

    name: str
    label: str
    suffix: str
    settings: tuple[float, ...]
    encoder: str
    form: str
    pixels: str
    options: str
    low_delay: bool
    runs_programs = True

    def encode(self, frames: Iterable[Image.Image], rate: Fraction, path: Path, setting: float) -> None:
        _ffmpeg(self.encoder)  # says so when it is not there
        frames = iter(frames)
        first = next(frames)
        right, bottom = (max(side + side % 2, SMALLEST) - side for side in first.size)
        size = f"{first.width + right}x{first.height + bottom}"
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-framerate", str(rate), "-i", "pipe:0"]
        codec = ["-c:v", self.encoder, *self.options.format(f"{setting:g}").split(), "-f", self.form]
        with tempfile.TemporaryDirectory() as folder:
            stream = Path(folder) / "stream"
            arguments = [*raw, "-vf", _TO_YUV.format(self.pixels), *codec, f"file:{stream}"]
            with Ffmpeg(arguments, writes=True) as ffmpeg:
                with suppress(BrokenPipeError):  # its exit code says the same
                    for frame in (first, *frames):
                        ffmpeg.process.stdin.write(_replicated(frame, right, bottom).tobytes())
                    ffmpeg.process.stdin.close()
                if ffmpeg.wait() or not stream.stat().st_size:
                    raise ModelError(f"ffmpeg with {self.encoder} failed: {ffmpeg.failure or 'no output'}")
            write_atomic(path, bytes([right << 4 | bottom]) + stream.read_bytes())

    def decode(self, path: Path) -> Iterator[Image.Image]:
        right, bottom = divmod(path.read_bytes()[0], 16)
        ppm = ["-fps_mode", "passthrough", "-vf", _TO_RGB, "-c:v", "ppm", "-f", "image2pipe", "pipe:1"]
        with Ffmpeg(["-xerror", *self._input(path), *ppm], reads=True) as ffmpeg:
            read = ffmpeg.process.stdout
            while read.readline():  # P6
                width, height = map(int, read.readline().split())
                read.readline()
                pixels = read.read(3 * width * height)
                if len(pixels) == 3 * width * height:
                    yield Image.frombytes("RGB", (width, height), pixels).crop((0, 0, width - right, height - bottom))
            if ffmpeg.wait():
                raise ModelError(f"ffmpeg cannot decode {path}: {ffmpeg.failure or 'it ended early'}")

    def frame_bytes(self, path: Path) -> list[int] | None:
        if not self.low_delay:
            return None
        with Ffmpeg([*self._input(path), "-c", "copy", "-f", "framecrc", "pipe:1"], reads=True) as ffmpeg:
            lines = ffmpeg.process.stdout.read().decode().splitlines()
        return [int(line.split(",")[4]) for line in lines if not line.startswith("#")]

    def _input(self, path: Path) -> list[str]:
        return ["-skip_initial_bytes", "1", "-f", self.form, "-i", f"file:{path}"]


_NO_TEXT = "-bsf:v filter_units=remove_types=6"
"""Without supplemental information, in which x264 writes 600 bytes of text."""
_X264 = "-preset medium -crf {} -threads 1 -x264-params keyint=infinite:scenecut=0"
_X265 = "-preset medium -crf {} -x265-params keyint=-1:scenecut=0:info=0:pools=none:frame-threads=1"
_SVTAV1 = "-preset 6 -g 99999 -svtav1-params crf={}:scd=0:lp=1"
_VVC = "-preset fast -qp {} -qpa 0 -threads 1 -vvenc-params"
_CRF, _CRF_AV1, _QP = (51, 45, 40, 35, 30, 24), (70, 63, 56, 48, 40, 32), (52, 46, 41, 36, 31, 26)

CLIP_ANCHORS: dict[str, ClipAnchor] = {
    anchor.name: anchor
    for anchor in (
        ClipAnchor("x264_ld", "x264 medium, low delay", ".264", _CRF, "libx264", "h264", "yuv420p",
                   f"{_X264}:bframes=0 {_NO_TEXT}", True),
        ClipAnchor("x264_ra", "x264 medium, random access", ".264", _CRF, "libx264", "h264", "yuv420p",
                   f"{_X264} {_NO_TEXT}", False),
        ClipAnchor("x265_ld", "x265 medium, low delay", ".265", _CRF, "libx265", "hevc", "yuv420p10le",
                   f"{_X265}:bframes=0", True),
        ClipAnchor("x265_ra", "x265 medium, random access", ".265", _CRF, "libx265", "hevc", "yuv420p10le", _X265, False),
        ClipAnchor("svtav1_ld", "SVT-AV1 preset 6, low delay", ".obu", _CRF_AV1, "libsvtav1", "obu", "yuv420p10le",
                   f"{_SVTAV1}:pred-struct=1", True),
        ClipAnchor("svtav1_ra", "SVT-AV1 preset 6, random access", ".obu", _CRF_AV1, "libsvtav1", "obu", "yuv420p10le",
                   f"{_SVTAV1}:pred-struct=2", False),
        ClipAnchor("vvc_ld", "VVC (VVenC, fast), low delay", ".vvc", _QP, "libvvenc", "vvc", "yuv420p10le",
                   f"{_VVC} picreordering=0:decodingrefreshtype=none:intraperiod=-1:gopsize=8", True),
        ClipAnchor("vvc_ra", "VVC (VVenC, fast), random access", ".vvc", _QP, "libvvenc", "vvc", "yuv420p10le",
                   f"{_VVC} intraperiod=99968", False),
    )
}  # fmt: skip
"""Every peer by name."""
