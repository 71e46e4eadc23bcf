"""Shared fixtures: small untrained models exported to a folder of their own, and a photo-like picture."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from live.artefact import write_artefact
from live.checkpoints import export_codec
from live.codecs.glc import Glc, GlcConfig
from live.codecs.plus import LivePlus, PlusConfig
from live.latents.base import Statistics, identity_of
from live.latents.compact import CONVENTION, CompactAutoencoder
from live.latents.compact_net import CompactConfig, CompactNet, patch_components
from live.latents.vq import VqAutoencoder
from live.latents.vq_net import VqConfig, VqNet
from live.media import to_tensor
from training.data import is_validation

SMALL_NET = {
    "channels": 4, "encoder_widths": [8, 8], "encoder_blocks": [1, 1], "decoder_widths": [8, 8], "decoder_blocks": [1, 1],
}  # fmt: skip
SMALL_PLUS = PlusConfig(
    channels=4, width=8, z_channels=4, analysis_width=8, analysis_blocks=1, synthesis_width=8, synthesis_blocks=1
)
SMALL_VQ = VqConfig(
    channels=8, codebook=16, inner=CompactConfig(4, (8, 8), (1, 1), (8, 8), (1, 1)), encoder_width=8, decoder_width=8,
    decoder_blocks=1,
)  # fmt: skip
SMALL_GLC = GlcConfig(channels=8, codebook=16, blocks=1, transform_blocks=1, identity=True)


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


def export_small_vq(folder: Path) -> str:
    """A small VQ autoencoder as ``glc-compact`` beside the ``compact`` that it grows from; its identity."""
    compact = CompactAutoencoder(folder / "compact.safetensors", "compact")
    torch.manual_seed(0)
    net = VqNet(SMALL_VQ)
    net.start_from(compact.net, torch.ones(4), [to_tensor(photo(128, 128, seed)) * 2 - 1 for seed in range(4)])
    weights = {name: tensor.half() for name, tensor in net.state_dict().items()}
    weights["latent_mean"], weights["latent_std"] = torch.zeros(8), torch.ones(8)
    card = {"kind": "autoencoder", "network": "vq", "model": asdict(SMALL_VQ)}
    identity = identity_of(weights, VqAutoencoder.convention)
    write_artefact(folder / "glc_compact_vq.safetensors", weights, card | {"identity": identity})
    return identity


def small_glc(codebook: int, latents: torch.Tensor) -> Glc:
    """A small codec after a few steps of training on latents (B, 8, h, w), whose rates rise from 0 to 3."""
    torch.manual_seed(0)
    codec = Glc(replace(SMALL_GLC, codebook=codebook))
    perturb(codec, 0)
    with torch.no_grad():
        codec.g_a.log_gain.copy_(0.6 * torch.arange(4.0)[:, None])
        codec.g_s.log_gain.copy_(-codec.g_a.log_gain)
    optimizer = torch.optim.Adam([p for p in codec.parameters() if p.requires_grad], 3e-3)
    for step in range(60):
        decoded, estimate = codec.estimated(latents, step % 4)
        bits = (estimate.y_bits + estimate.z_bits) / latents.numel()
        loss = bits + 10 * 2.0 ** (step % 4) * ((decoded - latents) ** 2).mean() + estimate.vq_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return codec.eval()


def export_small_glc(folder: Path, codebook: int, name: str = "glc_compact") -> Glc:
    """``small_glc`` on the autoencoder of ``export_small_vq``, beside it."""
    autoencoder = VqAutoencoder(folder / "glc_compact_vq.safetensors", "glc-compact")
    latents = torch.cat([autoencoder.encode(to_tensor(photo(192, 192, seed))) for seed in range(4)]).clone()
    card = {"quality": 0, "autoencoder_name": "glc-compact", "autoencoder": autoencoder.identity, "factor": 16}
    return export_codec(small_glc(codebook, latents), folder / f"{name}.safetensors", card)


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


@pytest.fixture(params=[16, 0], ids=["categorical", "factorised"], scope="session")
def glc_models(request, small_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small models with a small ``glc`` and its autoencoder, with either hyper module."""
    folder = tmp_path_factory.mktemp("glc")
    shutil.copytree(small_models, folder, dirs_exist_ok=True)
    export_small_vq(folder)
    export_small_glc(folder, request.param)
    return folder


@pytest.fixture
def glc_live(glc_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make them the embedded ones for a test."""
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(glc_models))
    return glc_models


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos to train on: six and two held out."""
    folder = tmp_path_factory.mktemp("photos")
    names = [f"{i}.png" for i in range(60)]
    held_out = [name for name in names if is_validation(Path(name))][:2]
    training = [name for name in names if not is_validation(Path(name))][:6]
    assert held_out
    for seed, name in enumerate(held_out + training):
        photo(288, 272, seed).save(folder / name)
    return folder
