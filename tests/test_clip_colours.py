"""Colours of clips: kept, converted by what is declared, exact where nothing must be lost; at odd sizes as at even ones."""

from __future__ import annotations

import subprocess
from fractions import Fraction

import numpy as np
import pytest
from films import RATE, make_clip, moving, psnr, read, write
from PIL import Image

from live.video.ffmpeg import Ffmpeg, binary
from live.video.properties import Colour, Properties
from live.video.sink import open_sink
from live.video.source import open_source


def test_mp4_is_visually_lossless_and_playable(tmp_path):
    frames = write(tmp_path / "a.mp4", Properties(320, 240, RATE))
    assert psnr(read(tmp_path / "a.mp4")[1], frames) > 38
    said = []
    with Ffmpeg(["-i", str(tmp_path / "a.mp4")], hear=said.append) as ffmpeg:
        ffmpeg.wait()
    stream = next(line for line in said if "Video:" in line)
    assert "h264" in stream and "yuv420p(tv, bt709" in stream
    odd = Properties(37, 21, RATE)
    write(tmp_path / "odd.mp4", odd)
    assert open_source(tmp_path / "odd.mp4")._format == "yuv444p"


@pytest.mark.parametrize("matrix", [1, 4, 5, 6, 9])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("size", [(48, 32), (37, 21)])
def test_colours_are_kept_and_converted_by_what_is_declared(tmp_path, matrix, full_range, size):
    colour = Colour(matrix, full_range, 9, 16)
    written = Properties(*size, Fraction(24), Fraction(128, 117), colour)
    frames = write(tmp_path / "a.mp4", written)
    found, again, _ = read(tmp_path / "a.mp4")
    assert found == written
    assert psnr(again, frames) > 36  # see the next test


def test_wrong_colours_would_be_seen(tmp_path):
    """y4m does not name the matrix, so it is taken for BT.709."""
    for matrix, low, high in ((1, 36, 99), (5, 0, 30), (9, 0, 36)):
        frames = write(tmp_path / "a.y4m", Properties(48, 32, RATE, colour=Colour(matrix)))
        assert low < psnr(read(tmp_path / "a.y4m")[1], frames) < high


def test_rgb_comes_back_exactly_in_ten_bits(tmp_path):
    """Noise of all colours, through 10-bit YUV and back, in every matrix."""
    random = np.random.default_rng(3)
    noise = random.integers(0, 256, (21, 37, 3), np.uint8)
    for matrix in (1, 5, 9):
        with open_sink(tmp_path / "a.y4m", Properties(37, 21, RATE, colour=Colour(matrix)), True) as sink:
            sink.write(Image.fromarray(noise))
        clip = open_source(tmp_path / "a.y4m")
        assert clip._format == "yuv444p10le"
        clip.properties = Properties(37, 21, RATE, colour=Colour(matrix))
        assert (np.asarray(next(clip.frames())) == noise).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mkv", ["-c:v", "ffv1", "-pix_fmt", "gbrp"]),
        ("a.mkv", ["-c:v", "ffv1", "-pix_fmt", "bgr0"]),
        ("a.mov", ["-c:v", "png"]),
        ("a.mp4", ["-c:v", "libx264rgb", "-qp", "0"]),
    ],
)
def test_rgb_clips_are_read_exactly(tmp_path, name, options):
    found, frames, _ = read(make_clip(tmp_path / name, *options, size=(37, 21)))
    assert found.colour == Colour(0, True)
    assert psnr(frames, [np.asarray(frame) for frame in moving(37, 21, 5)]) == np.inf


@pytest.mark.parametrize(
    "pixel_format",
    ["yuv420p", "nv12", "yuv422p", "yuv420p10le", "yuv444p12le", "yuv440p", "yuv411p", "yuv410p", "gray"],
)
def test_an_odd_clip_has_the_colours_of_the_even_one(tmp_path, pixel_format):
    """The same samples without those of the last row and column; chroma samples at the border reach beyond it."""
    to_yuv = "format=gbrp,zscale=matrix=709:range=limited:dither=none"
    raw = ["-c:v", "rawvideo", "-pix_fmt", pixel_format]
    even = make_clip(tmp_path / "even.nut", "-vf", to_yuv, *raw, size=(40, 24))
    cut = [binary(), "-loglevel", "error", "-i", str(even), "-vf", "crop=39:23:0:0:exact=1", *raw]
    subprocess.run([*cut, str(tmp_path / "odd.nut")], check=True)
    _, frames, _ = read(even)
    if pixel_format != "gray":
        assert psnr(frames, [np.asarray(frame) for frame in moving(40, 24, 5)]) > 28
    properties, odd, _ = read(tmp_path / "odd.nut")
    assert (properties.width, properties.height) == (39, 23)
    assert psnr(odd, [frame[:23, :39] for frame in frames]) > 45
