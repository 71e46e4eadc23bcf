"""Golden files: made once with small models that lie beside them, decoded for ever.

``LIVE_REGENERATE_GOLDEN=NAME pytest tests/test_golden.py`` makes those of an arithmetic or codec that is exported today
anew (``int24``, ``glc``, ``live_video``, ``clip_latents``, ``glc_video``), which only a new format version may ask for.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_PLUS, export_small_glc, export_small_vq, perturb, photo
from films import export_clip_codec, frames_of, moving, moving_latents, small_glc_video, small_live_video
from films import psnr as psnr_of_clips

import live
from live.artefact import read_card
from live.checkpoints import export_codec, load_codec
from live.codecs.plus import LivePlus
from live.codecs.video.base import VideoCodec
from live.coder import Read
from live.container import unpack
from live.latents.base import Statistics
from live.media import to_tensor
from live.metrics.distortion import psnr
from live.video.container import ClipReader

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = GOLDEN / "expected.json"
FILES = {  # name: (checkpoint, picture's width and height, or None for latents)
    "plus_q1_33x17": ("live_plus_q1", (33, 17)),
    "plus_q2_64x48": ("live_plus_q2", (64, 48)),
    "plus_q2_latents": ("live_plus_q2", None),
    "paper_50x70": ("live_paper", (50, 70)),
    "paper_latents": ("live_paper", None),
    "int24_45x70": ("live_plus_int24", (45, 70)),
    "int24_latents": ("live_plus_int24", None),
    "glc_45x70": ("glc_categorical", (45, 70)),
    "glc_latents": ("glc_categorical", None),
    "glc_factorised_70x33": ("glc_factorised", (70, 33)),
}
CLIPS = {  # name: (checkpoint, frames' width and height, or None for latents)
    "clips/live_video_q1_48x40": ("clips/live_video", (48, 40)),
    "clips/live_video_q2_37x45": ("clips/live_video", (37, 45)),
    "clips/live_video_latents": ("clips/live_video", None),
    "clips/glc_video_40x70": ("clips/glc_video", (40, 70)),
}
COUNT = 13
"""Frames of a clip: the ninth after an intra frame is the first that some adaptor of ``glc_video`` has."""


def regenerate(name: str) -> None:
    """Only what the present exporter makes anew: files of the first arithmetic (the others) are never made again."""
    if name.endswith("_video"):
        regenerate_clips(name)
        return
    if name == "clip_latents":
        regenerate_clip_latents("clips/live_video_latents")
        return
    if name == "glc":
        export_small_vq(GOLDEN)
        for codebook, checkpoint in ((16, "glc_categorical"), (0, "glc_factorised")):
            export_small_glc(GOLDEN, codebook, checkpoint)
        made = {"glc_45x70": 1.5, "glc_latents": 3, "glc_factorised_70x33": 2}
    else:
        assert name == "int24"
        export_int24()
        made = {"int24_45x70": None, "int24_latents": None}
    expected = json.loads(EXPECTED.read_text())
    for file, quality in made.items():
        checkpoint, size = FILES[file]
        options = {"quality": quality, "checkpoint": GOLDEN / f"{checkpoint}.safetensors"}
        if size:
            data = live.compress(photo(*size, seed=9), **options)
        else:
            channels = load_codec(options["checkpoint"]).channels
            latents = torch.randn(1, channels, 9, 11, generator=torch.Generator().manual_seed(10))
            data = live.compress_latents(latents, **options)
        (GOLDEN / f"{file}.live").write_bytes(data)
        expected[file] = facts(file, data)
    EXPECTED.write_text(json.dumps(expected, indent=1) + "\n")


def regenerate_clips(name: str) -> None:
    """Intra frames are by golden checkpoints of pictures, which stay as they are."""
    checkpoint = GOLDEN / "clips" / f"{name}.safetensors"
    if name == "glc_video":
        export_clip_codec(small_glc_video(load_codec(GOLDEN / "glc_categorical.safetensors")), checkpoint)
        made = {"clips/glc_video_40x70": (1.5, 11)}  # quality, intra period
    else:
        images = [load_codec(GOLDEN / f"live_plus_q{quality}.safetensors") for quality in (1, 2)]
        export_clip_codec(small_live_video(images), checkpoint)
        made = {"clips/live_video_q1_48x40": (1, 7), "clips/live_video_q2_37x45": (2, 5)}
    expected = json.loads(EXPECTED.read_text())
    for file, (quality, period) in made.items():
        frames, path = moving(*CLIPS[file][1], COUNT), GOLDEN / f"{file}.live"
        live.compress_clip(frames, path, quality, checkpoint=checkpoint, fps=25, intra_period=period, scene_cuts=False)
        expected[file] = facts(file, path.read_bytes())
    EXPECTED.write_text(json.dumps(expected, indent=1) + "\n")


def regenerate_clip_latents(file: str) -> None:
    """By the golden checkpoint, which stays as it is."""
    checkpoint, path = GOLDEN / f"{CLIPS[file][0]}.safetensors", GOLDEN / f"{file}.live"
    latents = moving_latents(load_codec(checkpoint).channels, 9, 13, COUNT)
    live.compress_clip_latents(latents, path, 2, checkpoint=checkpoint, intra_period=5, scene_cuts=False)
    expected = json.loads(EXPECTED.read_text()) | {file: facts(file, path.read_bytes())}
    EXPECTED.write_text(json.dumps(expected, indent=1) + "\n")


def export_int24() -> None:
    torch.manual_seed(2)
    codec = LivePlus(SMALL_PLUS, Statistics(torch.zeros(4), torch.ones(4)), 0.2)
    perturb(codec, 2)
    identity = read_card(GOLDEN / "compact.safetensors")["identity"]
    card = {"quality": 3, "autoencoder": identity, "autoencoder_name": "compact", "factor": 8}
    export_codec(codec, GOLDEN / "live_plus_int24.safetensors", card)


def facts(name: str, data: bytes) -> dict[str, object]:
    """What must not change: the symbols to the last one; the picture up to the rounding of floating point."""
    checkpoint, size = (FILES | CLIPS)[name]
    codec, seen = load_codec(GOLDEN / f"{checkpoint}.safetensors"), []

    class Recording(Read):
        def code(self, symbols, indices, tables):
            seen.append(super().code(symbols, indices, tables))
            return seen[-1]

    if name in CLIPS:
        latents = torch.cat(list(latents_of_clip(codec, data, Recording)))
    else:
        file, factor = unpack(data), codec.card["factor"] if size else 1
        height, width = (-(-side // factor) for side in (file.height, file.width))
        port = Recording(file.stream, codec.symbol_count(*codec.padded(height, width)))
        latents = codec.decode(port, height, width)
    symbols = np.concatenate(seen).astype("<i4")
    return {
        "symbols": hashlib.sha256(symbols.tobytes()).hexdigest(),
        "count": len(symbols),
        "latents_mean": round(latents.double().mean().item(), 3),
        "latents_std": round(latents.double().std().item(), 3),
    }


def latents_of_clip(codec: VideoCodec, data: bytes, port_kind: type[Read]) -> Iterator[torch.Tensor]:
    """The decoded latents (1, c, h, w) of every frame."""
    reader, state = ClipReader(io.BytesIO(data)), None
    codec, clip = codec.at_byte(reader.header.quality), reader.header.properties
    factor = 1 if reader.header.latents else codec.card["factor"]
    height, width = (-(-side // factor) for side in (clip.height, clip.width))
    for frame in reader.frames():
        port = port_kind(frame.stream, codec.symbol_count(height, width, frame.intra))
        latents, state = codec.decode(port, height, width, None if frame.intra else state)
        yield latents


@pytest.fixture(autouse=True)
def golden_models(monkeypatch):
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(GOLDEN))
    if name := os.environ.get("LIVE_REGENERATE_GOLDEN"):
        regenerate(name)


def assert_as_expected(name: str, data: bytes) -> None:
    found, expected = facts(name, data), json.loads(EXPECTED.read_text())[name]
    assert (found["symbols"], found["count"]) == (expected["symbols"], expected["count"])
    for key in ("latents_mean", "latents_std"):
        assert found[key] == pytest.approx(expected[key], abs=2e-3)


@pytest.mark.parametrize("name", FILES)
def test_golden_files_decode(name):
    data = (GOLDEN / f"{name}.live").read_bytes()
    assert_as_expected(name, data)
    if FILES[name][1]:
        picture = live.decompress(data)
        assert picture.size == FILES[name][1]
        if not name.startswith("paper"):  # the small live_paper is untrained: its picture is noise
            assert psnr(to_tensor(picture), to_tensor(photo(*picture.size, seed=9))).item() > 12
    else:
        channels = load_codec(GOLDEN / f"{FILES[name][0]}.safetensors").channels
        assert live.decompress_latents(data).shape == (1, channels, 9, 11)


@pytest.mark.parametrize("name", CLIPS)
def test_golden_clips_decode(name):
    checkpoint, size = CLIPS[name]
    path = GOLDEN / f"{name}.live"
    assert_as_expected(name, path.read_bytes())
    if size is None:
        with live.decompress_clip_latents(path, checkpoint=GOLDEN / f"{checkpoint}.safetensors") as frames:
            assert [frame.shape[2:] for frame in frames] == [(9, 13)] * COUNT
        return
    frames = frames_of(path, checkpoint=GOLDEN / f"{checkpoint}.safetensors")
    assert psnr_of_clips(frames, [np.asarray(frame) for frame in moving(*size, COUNT)]) > 12
