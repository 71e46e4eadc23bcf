"""Shared fixtures: small untrained models exported to a folder of their own, and a photo-like picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from live.artefact import write_artefact
from live.checkpoints import export_codec
from live.codecs.plus import LivePlus, PlusConfig
from live.latents.base import Statistics, identity_of
from live.latents.compact import CONVENTION
from live.latents.compact_net import CompactConfig, CompactNet, patch_components

SMALL_NET = {
    "channels": 4, "encoder_widths": [8, 8], "encoder_blocks": [1, 1], "decoder_widths": [8, 8], "decoder_blocks": [1, 1],
}  # fmt: skip
SMALL_PLUS = PlusConfig(
    channels=4, width=8, z_channels=4, analysis_width=8, analysis_blocks=1, synthesis_width=8, synthesis_blocks=1
)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth picture with edges and some grain: compressible, yet not trivial."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width] / 32.0
    waves = [128 + 60 * np.sin(rows * (1 + c) + seed) + 50 * np.cos(columns * (2 - 0.5 * c)) for c in range(3)]
    picture = np.stack(waves, -1) + 30 * ((rows + columns) % 2 > 1)[..., None]
    return Image.fromarray(np.clip(picture + random.normal(0, 3, picture.shape), 0, 255).astype(np.uint8))


def perturb(module: torch.nn.Module, seed: int) -> None:
    """Give zero-initialised layers something to do, reproducibly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not name.endswith(("quantiles", "log_gain")):
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def export_small_autoencoder(path: Path, seed: int = 0) -> str:
    config = CompactConfig(4, (8, 8), (1, 1), (8, 8), (1, 1))
    torch.manual_seed(seed)
    net = CompactNet(config)
    pictures = [torch.from_numpy(np.asarray(photo(96, 96, s)).copy()).permute(2, 0, 1) / 127.5 - 1 for s in range(4)]
    net.init_patch_transform(*patch_components(pictures, 4))
    weights = {name: tensor.half() for name, tensor in net.state_dict().items()}
    weights["latent_mean"], weights["latent_std"] = torch.zeros(4), torch.ones(4)
    identity = identity_of(weights, CONVENTION)
    write_artefact(path, weights, {"kind": "autoencoder", "model": SMALL_NET, "identity": identity})
    return identity


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoints folder with a small ``compact`` and two qualities of a small ``live_plus`` on it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    identity = export_small_autoencoder(folder / "compact.safetensors")
    for quality, step in ((1, 0.8), (2, 0.2)):
        torch.manual_seed(quality)
        codec = LivePlus(SMALL_PLUS, Statistics(torch.zeros(4), torch.ones(4)), step)
        perturb(codec, quality)
        card = {"quality": quality, "autoencoder": identity, "autoencoder_name": "compact", "factor": 8}
        export_codec(codec, folder / f"live_plus_q{quality}.safetensors", card)
    return folder


@pytest.fixture
def small_live(small_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the small models the embedded ones for a test."""

    monkeypatch.setenv("LIVE_CHECKPOINTS", str(small_models))
    return small_models
