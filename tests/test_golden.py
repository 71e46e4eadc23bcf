"""Golden files: made once with small models that lie beside them, decoded for ever.

``LIVE_REGENERATE_GOLDEN=NAME pytest tests/test_golden.py`` makes those of an arithmetic or codec that is exported today
anew (``int24``, ``glc``), which only a new format version may ask for.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_PLUS, export_small_glc, export_small_vq, perturb, photo

import live
from live.artefact import read_card
from live.checkpoints import export_codec, load_codec
from live.codecs.plus import LivePlus
from live.coder import Read
from live.container import unpack
from live.latents.base import Statistics
from live.media import to_tensor
from live.metrics.distortion import psnr

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


def regenerate(name: str) -> None:
    """Only what the present exporter makes anew: files of the first arithmetic (the others) are never made again."""
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


def export_int24() -> None:
    torch.manual_seed(2)
    codec = LivePlus(SMALL_PLUS, Statistics(torch.zeros(4), torch.ones(4)), 0.2)
    perturb(codec, 2)
    identity = read_card(GOLDEN / "compact.safetensors")["identity"]
    card = {"quality": 3, "autoencoder": identity, "autoencoder_name": "compact", "factor": 8}
    export_codec(codec, GOLDEN / "live_plus_int24.safetensors", card)


def facts(name: str, data: bytes) -> dict[str, object]:
    """What must not change: the symbols to the last one; the picture up to the rounding of floating point."""
    checkpoint, size = FILES[name]
    codec, file = load_codec(GOLDEN / f"{checkpoint}.safetensors"), unpack(data)
    factor = codec.card["factor"] if size else 1
    height, width = (-(-side // factor) for side in (file.height, file.width))
    seen = []

    class Recording(Read):
        def code(self, symbols, indices, tables):
            seen.append(super().code(symbols, indices, tables))
            return seen[-1]

    latents = codec.decode(Recording(file.stream, codec.symbol_count(*codec.padded(height, width))), height, width)
    symbols = np.concatenate(seen).astype("<i4")
    return {
        "symbols": hashlib.sha256(symbols.tobytes()).hexdigest(),
        "count": len(symbols),
        "latents_mean": round(latents.double().mean().item(), 3),
        "latents_std": round(latents.double().std().item(), 3),
    }


@pytest.fixture(autouse=True)
def golden_models(monkeypatch):
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(GOLDEN))
    if name := os.environ.get("LIVE_REGENERATE_GOLDEN"):
        regenerate(name)


@pytest.mark.parametrize("name", FILES)
def test_golden_files_decode(name):
    data = (GOLDEN / f"{name}.live").read_bytes()
    expected = json.loads(EXPECTED.read_text())[name]
    found = facts(name, data)
    assert (found["symbols"], found["count"]) == (expected["symbols"], expected["count"])
    for key in ("latents_mean", "latents_std"):
        assert found[key] == pytest.approx(expected[key], abs=2e-3)
    if FILES[name][1]:
        picture = live.decompress(data)
        assert picture.size == FILES[name][1]
        if not name.startswith("paper"):  # the small live_paper is untrained: its picture is noise
            assert psnr(to_tensor(picture), to_tensor(photo(*picture.size, seed=9))).item() > 12
    else:
        channels = load_codec(GOLDEN / f"{FILES[name][0]}.safetensors").channels
        assert live.decompress_latents(data).shape == (1, channels, 9, 11)
