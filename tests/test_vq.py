"""The VQ autoencoders: ours starts as compact; the published shape, with its codec, counted and through a file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import SMALL_VQ, photo
from torch import nn

import live
from live.artefact import write_artefact
from live.checkpoints import export_codec, load_codec
from live.codecs.glc import Glc, GlcConfig
from live.latents.base import identity_of
from live.latents.compact_net import CompactNet
from live.latents.vq import VqAutoencoder
from live.latents.vq_net import VqConfig, VqNet
from live.media import to_tensor


def test_the_autoencoder_starts_as_compact():
    """With as many channels as 2 x 2 latents of compact have, nothing is lost; with half of them the best half is kept."""
    torch.manual_seed(0)
    compact = CompactNet(SMALL_VQ.inner)
    pictures = [to_tensor(photo(96, 96, seed)) * 2 - 1 for seed in range(6)]
    with torch.no_grad():
        gain = torch.linspace(0.5, 2, SMALL_VQ.inner.channels)
        expected, errors = compact.decoder(compact.encoder(pictures[0])), []
        for channels in (16, 8, 4):
            net = VqNet(replace(SMALL_VQ, channels=channels))
            net.start_from(compact, gain, pictures)
            latents = torch.cat([net.encoder(p) for p in pictures])
            spread = latents.std((0, 2, 3))
            assert latents.mean((0, 2, 3)).abs().max() < 1e-3 and (spread.diff() <= 1e-3).all(), "largest first"
            errors.append((net.decoder(net.encoder(pictures[0])) - expected).square().mean().sqrt().item())
    assert errors[0] < 1e-3 * expected.std() and errors[0] < errors[1] < errors[2]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def published() -> tuple[VqNet, Glc]:
    torch.manual_seed(0)
    return VqNet(VqConfig(published=True)).eval(), Glc(GlcConfig()).eval()


def test_the_published_shape(published):
    """As jzyustc/GLC has it, counted by part."""
    net, codec = published
    assert [parameters(part) for part in (*net.encoder, *net.decoder)] == [29_298_176, 65_792, 65_792, 42_449_795]
    counts = {name: parameters(part) for name, part in codec.prior.named_children() if parameters(part)}
    assert counts == {
        "h_a": 1_708_800, "categorical": 16384 * 256, "h_s": 2_761_472, "fusion": 6_505_472,
        "reduction": 768 * 256 + 256, "adaptors": 6_317_568, "spatial": 6_317_568,
    }  # fmt: skip
    for transform in (codec.g_a, codec.g_s):
        assert parameters(transform) == 2_378_752 and transform.log_gain.shape == (4, 256)
        assert len(transform.before) + len(transform.after) == 4
    assert codec.prior.categorical.codebook.shape == net.quantiser.codebook.shape == (16384, 256)
    assert codec.prior.fusion(torch.zeros(1, 256, 4, 4)).shape == (1, 768, 4, 4)
    with torch.no_grad():
        latents = net.encoder(to_tensor(photo(64, 64)) * 2 - 1)
        assert latents.shape == (1, 256, 4, 4) and net.decoder(latents).shape == (1, 3, 64, 64)
        estimate = codec.prior(codec.g_a(latents, 0))
    assert estimate.z_bits.item() == pytest.approx(14), "as long as nothing was counted"


def test_the_published_shape_through_a_file(published, tmp_path, monkeypatch):
    net, codec = published
    usage = codec.prior.categorical.usage
    usage.copy_(torch.rand(len(usage)) ** 8)
    usage /= usage.sum()
    weights = {"latent_mean": torch.zeros(256), "latent_std": torch.ones(256), **net.state_dict()}
    identity = identity_of(weights, VqAutoencoder.convention)
    card = {"kind": "autoencoder", "network": "vq", "model": {"published": True}, "identity": identity}
    write_artefact(tmp_path / "glc_compact_vq.safetensors", weights, card)
    named = {"quality": 0, "autoencoder": identity, "autoencoder_name": "glc-compact", "factor": 16}
    export_codec(codec, tmp_path / "glc_compact.safetensors", named)
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(tmp_path))
    data = live.compress(photo(70, 50), 2.5, codec="glc")
    assert live.decompress(data).size == (70, 50)
    assert load_codec(tmp_path / "glc_compact.safetensors").tables["z"].cdfs.shape == (1, 16386)
