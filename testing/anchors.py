"""The peers that LIVE is measured against: each one small class that turns a picture into a real file's bytes and back.

| name    | codec    | chroma       | setting, from low to high rate | container |
|---------|----------|--------------|--------------------------------|-----------|
| jpeg    | libjpeg  | 4:2:0        | quality, optimised Huffman     | 20 B      |
| jpeg444 | libjpeg  | 4:4:4        | the same                       | 20 B      |
| webp    | libwebp  | 4:2:0 always | quality, method 6              | 20 B      |
| heif    | x265     | 4:4:4        | quality                        | 379 B     |
| avif    | libaom   | 4:4:4        | quality, speed 4               | 275 B     |
| avif420 | libaom   | 4:2:0        | the same                       | 275 B     |
| jxl     | libjxl   | 4:4:4 (XYB)  | Butteraugli distance, falling  | 0 B       |
| vvc     | VVenC    | 4:2:0 10-bit | QP, falling                    | 1 B       |
| vtm     | VTM      | 4:4:4 10-bit | QP, falling (user's binaries)  | 4 B       |

Container bytes are part of every file and of every rate that is reported; they are the file's bytes outside the coded
picture: JPEG's start and JFIF marker, RIFF and chunk heads, every ISO box except mdat's content (with it the HEVC
parameter sets).
"""

from __future__ import annotations

import io
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Protocol

from PIL import Image, ImageOps, features

from live.errors import ModelError
from live.video.ffmpeg import binary
from vtm.codec import Vtm


class Anchor(Protocol):
    """A codec under test.

    name: how tables and the command line call it; label: for figures, with the chroma format; suffix: of its files;
    settings: numbers in order of rate, low to high; container: bytes of each file that code no picture; runs_programs:
    that it works in processes of its own, so that several files are made at the same time.
    """

    name: str
    label: str
    suffix: str
    container: int
    runs_programs = False

    @property
    def settings(self) -> tuple[float, ...]: ...

    def encode(self, image: Image.Image, quality: int) -> bytes:
        """A PIL RGB picture, 8 bit, as the bytes of a complete file. ModelError when the codec is not installed."""

    def decode(self, data: bytes) -> Image.Image:
        """The bytes of a file as PIL RGB, 8 bit, of the original size."""


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


@dataclass(frozen=True)
class Jpeg(Anchor):
    """Baseline JPEG by Pillow with optimised Huffman tables; ``chroma`` is "4:2:0" or "4:4:4"."""

    name: str
    chroma: str
    suffix = ".jpg"
    settings = (2, 5, 8, 12, 20, 45)
    container = 20

    @property
    def label(self) -> str:
        return f"JPEG {self.chroma}"

    def encode(self, image: Image.Image, quality: int) -> bytes:
        return _saved(image, "JPEG", quality=quality, subsampling=self.chroma, optimize=True)

    def decode(self, data: bytes) -> Image.Image:
        return _opened(data)


class WebP(Anchor):
    """Lossy WebP by Pillow, slowest method. The format has no other chroma than 4:2:0."""

    name, label, suffix = "webp", "WebP 4:2:0", ".webp"
    settings = (0, 2, 10, 40, 75)
    container = 20

    def encode(self, image: Image.Image, quality: int) -> bytes:
        return _saved(image, "WEBP", quality=quality, method=6)

    def decode(self, data: bytes) -> Image.Image:
        return _opened(data)


class Heif(Anchor):
    """HEVC intra (x265) in HEIF by pillow-heif, 8 bit."""

    name, label, suffix = "heif", "HEIF (x265) 4:4:4", ".heic"
    settings = (1, 10, 20, 30, 40)
    container = 379

    def encode(self, image: Image.Image, quality: int) -> bytes:
        buffer = io.BytesIO()
        self._library().from_pillow(image).save(buffer, format="HEIF", quality=quality, chroma="444")
        return buffer.getvalue()

    def decode(self, data: bytes) -> Image.Image:
        return self._library().open_heif(io.BytesIO(data), convert_hdr_to_8bit=True).to_pillow().convert("RGB")

    @staticmethod
    def _library() -> ModuleType:
        try:
            import pillow_heif
        except ImportError:
            raise ModelError("the HEIF anchor needs the package pillow-heif; install it with pip") from None
        return pillow_heif


@dataclass(frozen=True)
class Avif(Anchor):
    """AV1 intra (libaom) in AVIF by Pillow, 8 bit, a slower speed than Pillow's default of 6; ``chroma`` is "4:2:0" or "4:4:4"."""

    name: str
    chroma: str
    suffix = ".avif"
    settings = (1, 10, 30, 40, 50, 60)
    container = 275

    @property
    def label(self) -> str:
        return f"AVIF {self.chroma}"

    def encode(self, image: Image.Image, quality: int) -> bytes:
        self._check()
        # One thread makes other files than several: a fixed number, so that they are the same on every machine.
        return _saved(image, "AVIF", quality=quality, subsampling=self.chroma, speed=4, max_threads=2)

    def decode(self, data: bytes) -> Image.Image:
        self._check()
        return _opened(data)

    @staticmethod
    def _check() -> None:
        if not features.check("avif"):
            raise ModelError("the AVIF anchor needs Pillow 11.3 or later built with AVIF; update pillow with pip")


@lru_cache
def _ffmpeg(encoder: str) -> str:
    """The path of imageio-ffmpeg's binary; ModelError when it is not installed or lacks the encoder."""
    path = binary()
    listing = subprocess.run([path, "-hide_banner", "-encoders"], capture_output=True, text=True).stdout
    if encoder not in listing.split():
        raise ModelError(f"this ffmpeg has no encoder {encoder}; install imageio-ffmpeg 0.6 or later")
    return path


def _pipe(encoder: str, data: bytes, *options: str) -> bytes:
    """Run ffmpeg from standard input to standard output; ModelError with ffmpeg's own first line when it fails."""
    command = [_ffmpeg(encoder), "-hide_banner", "-loglevel", "error", *options, "pipe:1"]
    done = subprocess.run(command, input=data, capture_output=True)
    if done.returncode or not done.stdout:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        raise ModelError(f"ffmpeg with {encoder} failed: {lines[0]}")
    return done.stdout


_PPM_IN = ("-f", "image2pipe", "-c:v", "ppm", "-i", "pipe:0")
_PPM_OUT = ("-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe")


class JpegXl(Anchor):
    """JPEG XL (libjxl, effort 7, VarDCT in XYB) by ffmpeg, as a bare codestream. The setting is the distance."""

    name, label, suffix = "jxl", "JPEG XL 4:4:4", ".jxl"
    settings = (15, 9, 5, 3, 1.6)
    container = 0
    runs_programs = True

    def encode(self, image: Image.Image, quality: int) -> bytes:
        options = ("-c:v", "libjxl", "-effort", "7", "-distance", str(quality), "-f", "image2pipe")
        return _pipe("libjxl", _saved(image, "PPM"), *_PPM_IN, *options)

    def decode(self, data: bytes) -> Image.Image:
        return _opened(_pipe("libjxl", data, "-f", "jpegxl_pipe", "-i", "pipe:0", *_PPM_OUT))


@dataclass(frozen=True)
class Vvc(Anchor):
    """One VVC intra frame (VVenC at a preset, perceptual QP adaptation off) by ffmpeg. The setting is the QP.

    RGB is converted to BT.709, limited range, 10 bit, 4:2:0 with rounding and Lanczos chroma filters (49.5 dB on
    kodim01 before any coding; 138 dB at 4:4:4, so the chroma format is the whole loss). The file is one byte, the
    padding in columns (high four bits) and rows (low four bits), and the raw Annex B bitstream.
    """

    name: str
    preset: str
    suffix = ".vvc"
    settings = (52, 46, 40, 34, 28)
    container = 1
    runs_programs = True
    smallest = 16
    _to_yuv = "format=gbrp,zscale=matrix=709:range=limited:dither=none:filter=lanczos,format=yuv420p10le"
    _to_rgb = (
        "zscale=matrixin=709:rangein=limited:matrix=gbr:range=full:dither=none:filter=lanczos,format=gbrp,format=rgb24"
    )

    @property
    def label(self) -> str:
        return f"VVC (VVenC, {self.preset}) 4:2:0 10-bit"

    def encode(self, image: Image.Image, quality: int) -> bytes:
        right, bottom = (max(size + size % 2, self.smallest) - size for size in image.size)
        padded = _replicated(image, right, bottom)
        codec = ("-c:v", "libvvenc", "-preset", self.preset, "-qp", str(quality), "-qpa", "0", "-threads", "1")
        intra = ("-vvenc-params", "gopsize=1:intraperiod=1", "-f", "vvc")
        stream = _pipe("libvvenc", _saved(padded, "PPM"), *_PPM_IN, "-vf", self._to_yuv, *codec, *intra)
        return bytes([right << 4 | bottom]) + stream

    def decode(self, data: bytes) -> Image.Image:
        right, bottom = data[0] >> 4, data[0] & 15
        decoded = _opened(_pipe("libvvenc", data[1:], "-f", "vvc", "-i", "pipe:0", "-vf", self._to_rgb, *_PPM_OUT))
        return decoded.crop((0, 0, decoded.width - right, decoded.height - bottom))


def _replicated(image: Image.Image, right: int, bottom: int) -> Image.Image:
    """The picture with its last column and row repeated."""
    width, height = image.size
    wide = ImageOps.expand(image, (0, 0, right, bottom))
    if right:
        wide.paste(wide.crop((width - 1, 0, width, height)).resize((right, height)), (width, 0))
    if bottom:
        wide.paste(wide.crop((0, height - 1, width + right, height)).resize((width + right, bottom)), (0, height))
    return wide


ANCHORS: dict[str, Anchor] = {
    anchor.name: anchor
    for anchor in (
        Jpeg("jpeg", "4:2:0"), Jpeg("jpeg444", "4:4:4"), WebP(), Heif(),
        Avif("avif", "4:4:4"), Avif("avif420", "4:2:0"), JpegXl(), Vvc("vvc", "fast"), Vtm(),
    )
}  # fmt: skip
"""Every peer by name."""
