"""VTM all-intra, 4:4:4, 10 bit, as an anchor with the interface of ``testing.anchors``.

    VTM_BIN=/path/to/VTM/bin   (holds EncoderAppStatic and DecoderAppStatic)
    VTM_CFG=/path/to/VTM/cfg   (holds encoder_intra_vtm.cfg; default: beside VTM_BIN)

RGB becomes BT.709 full-range YCbCr in 10 bit, rounded, and back likewise. The file is the picture's size (two 16-bit
numbers) and the raw bitstream: 4 container bytes.
"""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from live.errors import ModelError

PEAK = 1023
BT709 = np.array(
    [
        [0.2126, 0.7152, 0.0722],
        [-0.2126 / 1.8556, -0.7152 / 1.8556, 0.5],
        [0.5, -0.7152 / 1.5748, -0.0722 / 1.5748],
    ]
)


def to_yuv(image: Image.Image) -> np.ndarray:
    """PIL RGB -> (3, H, W) uint16, YCbCr BT.709 full range, 10 bit, rounded; chroma centred on 512."""
    planes = np.einsum("ij,hwj->ihw", BT709, np.asarray(image, np.float64) / 255) * PEAK
    planes[1:] += 512
    return np.clip(np.rint(planes), 0, PEAK).astype("<u2")


def to_rgb(planes: np.ndarray) -> Image.Image:
    """The inverse of ``to_yuv``, rounded to 8 bits."""
    values = planes.astype(np.float64)
    values[1:] -= 512
    rgb = np.einsum("ij,jhw->hwi", np.linalg.inv(BT709), values / PEAK) * 255
    return Image.fromarray(np.clip(np.rint(rgb), 0, 255).astype(np.uint8))


class Vtm:
    """One VVC intra picture by VTM; the setting is the QP."""

    name, label, suffix, container = "vtm", "VVC (VTM) 4:4:4 10-bit", ".vtm", 4
    settings = (52, 47, 42, 37, 32, 27)
    runs_programs = True

    def encode(self, image: Image.Image, quality: int) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            source, stream = Path(folder) / "in.yuv", Path(folder) / "out.266"
            source.write_bytes(to_yuv(image.convert("RGB")).tobytes())
            options = {
                "-c": str(self._config()), "-i": str(source), "-b": str(stream), "-o": os.devnull, "-q": str(quality),
                "-wdt": str(image.width), "-hgt": str(image.height), "-f": "1", "-fr": "1",
            }  # fmt: skip
            formats = (
                "--InputBitDepth=10",
                "--InternalBitDepth=10",
                "--InputChromaFormat=444",
                "--ConformanceWindowMode=1",
            )
            self._run("EncoderAppStatic", [part for pair in options.items() for part in pair] + list(formats), stream)
            return struct.pack("<HH", *image.size) + stream.read_bytes()

    def decode(self, data: bytes) -> Image.Image:
        width, height = struct.unpack_from("<HH", data)
        with tempfile.TemporaryDirectory() as folder:
            stream, output = Path(folder) / "in.266", Path(folder) / "out.yuv"
            stream.write_bytes(data[4:])
            self._run("DecoderAppStatic", ["-b", str(stream), "-o", str(output), "-d", "10"], output)
            planes = np.frombuffer(output.read_bytes(), "<u2")
        if planes.size != 3 * width * height:
            raise ModelError(f"VTM decoded {planes.size} samples where {3 * width * height} were expected")
        return to_rgb(planes.reshape(3, height, width))

    @classmethod
    def _config(cls) -> Path:
        folder = Path(os.environ.get("VTM_CFG") or cls._program("EncoderAppStatic").parent.parent / "cfg")
        config = folder / "encoder_intra_vtm.cfg"
        if not config.is_file():
            raise ModelError(f"no {config}; set VTM_CFG to VTM's cfg folder (see vtm/README.md)")
        return config

    @staticmethod
    def _program(name: str) -> Path:
        folder = os.environ.get("VTM_BIN")
        binary = Path(folder or "") / name
        if not folder or not binary.is_file():
            raise ModelError("the VTM anchor needs your own build: set VTM_BIN to its bin folder (see vtm/README.md)")
        return binary

    @classmethod
    def _run(cls, program: str, arguments: list[str], output: Path) -> None:
        done = subprocess.run([str(cls._program(program)), *arguments], capture_output=True, text=True)
        if done.returncode or not output.is_file():
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
            raise ModelError(f"{program} failed: {lines[-1]}")
