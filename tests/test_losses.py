"""Losses of a codec's training: over whatever autoencoder is plugged in, and shared by processes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL
from test_latents import BLOCKS

import live
from live import refine
from live.checkpoints import load_codec
from live.coder import Count
from live.command import run
from live.errors import ConfigError
from live.latents import load_autoencoder
from live.metrics.perceptual import dists_network, lpips_network
from training import export, train_codec
from training.data import Share
from training.losses import Phase, distortion_terms

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = """
base: {}
schedule: {{steps: 1, bf16: false, validate_every: 1}}
phases: [{{start: 0, batch: 2, crop: 64, l1: 0.0, alex: 0.0, latent_norm: 1.0}}]
"""


def test_a_codec_of_any_autoencoder_trains_on_pictures_and_on_draws(photos, tmp_path, capsys):
    """The losses on pictures go through whatever decoder is plugged in; the published codec is given draws of the posterior."""
    torch.manual_seed(0)
    AutoencoderKL(**BLOCKS, latent_channels=4, norm_num_groups=8).save_pretrained(tmp_path / "kl")
    vae = load_autoencoder(str(tmp_path / "kl"))
    values = train_codec.load_yaml(ROOT / "configs" / "live_paper.yaml")
    assert values["sample"] and not train_codec.load_yaml(ROOT / "configs" / "live_paper_compact.yaml")["sample"]
    values["schedule"] = {"steps": 2, "bf16": False}
    values["phases"] = [{"start": 0, "batch": 2, "crop": 64, "l1": 1.0, "dists": 0.5}]
    config = train_codec.parse(train_codec.CodecConfig, values | {"trained_at": 1.0})
    stage = train_codec.CodecStage(config, photos, vae, None)
    given, mean = stage.latents_of(torch.rand(2, 3, 64, 64))
    assert given.shape == mean.shape and not torch.equal(given, mean)
    loss, figures, _ = stage.loss(0)
    loss.backward()
    assert {"d_l1", "d_alex", "d_dists"} <= figures.keys()
    assert all(parameter.grad.abs().max() > 0 for parameter in stage.model.g_s.parameters())
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("base: {}\nsample: true\n".format(ROOT / "configs" / "live_paper_compact.yaml"))
    options = ["--config", str(wrong), "--data", str(photos), "--lambda", "1", "--run", str(tmp_path / "r")]
    assert run(lambda: train_codec.main(options)) == 2
    assert "compact has none; set sample: false" in capsys.readouterr().err


def test_the_published_codec_sees_latents_before_the_diffusion_scale(photos, tmp_path):
    """D is of what the network gives; files hold it too, and what is decoded has the scale again."""
    torch.manual_seed(0)
    AutoencoderKL(**BLOCKS, latent_channels=4, norm_num_groups=8).save_pretrained(tmp_path / "kl")
    vae = load_autoencoder(str(tmp_path / "kl"))
    config = tmp_path / "paper.yaml"
    config.write_text(PUBLISHED.format(ROOT / "configs" / "live_paper.yaml"))
    parsed = train_codec.parse(train_codec.CodecConfig, train_codec.load_yaml(config) | {"trained_at": 1.0})
    pictures = torch.rand(2, 3, 64, 64)
    net = AutoencoderKL.from_pretrained(tmp_path / "kl")
    with torch.no_grad():
        posterior = net.encode(pictures * 2 - 1).latent_dist.mean
    stage = train_codec.CodecStage(parsed, photos, vae, None)
    assert torch.allclose(stage.latents_of(pictures)[1], posterior, atol=1e-5)
    assert torch.allclose(stage.decode(posterior), vae.reconstruct(vae.encode(pictures)), atol=1e-5)

    options = ["--config", str(config), "--data", str(photos), "--vae", str(tmp_path / "kl"), "--lambda", "1"]
    assert train_codec.main([*options, "--run", str(tmp_path / "run")]) == 0
    path = tmp_path / "paper.safetensors"
    exported = ["codec", "--run", str(tmp_path / "run"), "-o", str(path), "--quality", "1"]
    assert export.main([*exported, "--vae", str(tmp_path / "kl")]) == 0
    codec = load_codec(path)
    assert codec.card["latent_scale"] == pytest.approx(1 / 0.18215)
    latents = vae.encode(pictures)[:1]
    with torch.inference_mode():
        through = codec.reconstruct(codec.walk(Count(), 8, 8, latents / 0.18215)) * 0.18215
    decoded = live.decompress_latents(live.compress_latents(latents, checkpoint=path), checkpoint=path)
    assert torch.allclose(decoded, through, atol=1e-5) and decoded.abs().max() > 0


def test_scales_by_channel_cannot_be_undone_by_one_number(photos):
    by_channel = SimpleNamespace(diffusion_scale=None, name="wide")
    assert train_codec.latent_scale(False, by_channel) == 1
    with pytest.raises(ConfigError, match="wide are scaled by channel"):
        train_codec.latent_scale(True, by_channel)


@pytest.mark.parametrize("vgg_crop", [64, 0])
def test_distortions_of_shares_make_the_gradient_of_the_whole(vgg_crop):
    """Of two processes: the mean of their gradients, DISTS and LPIPS-VGG too, which look at one picture of the batch or at all."""
    weights = Phase(0, 4, 64, l1=1.0, alex=1.0, vgg=1.0, dists=1.0, vgg_crop=vgg_crop)
    pictures, decoded = torch.rand(4, 3, 64, 64), torch.rand(4, 3, 64, 64)
    scale = torch.ones(3, 1, 1, requires_grad=True)

    def gradient(places: slice, share: Share) -> torch.Tensor:
        torch.manual_seed(0)  # LPIPS-Alex from the same place
        terms = distortion_terms(decoded[places] * scale, pictures[places], weights, share=share)
        return torch.autograd.grad(sum(terms.values()), scale)[0]

    whole = gradient(slice(4), Share())
    halves = [gradient(slice(rank, 4, 2), Share(rank, 2)) for rank in (0, 1)]
    assert torch.allclose(sum(halves) / 2, whole, rtol=1e-4, atol=1e-6)


def test_alexnet_looks_from_another_place_each_time():
    """In training and in the encoder's search: what gets no gradient is cut off."""
    picture = torch.rand(1, 3, 64, 80)
    searching = {"l1": 0.0, "mse": 0.0, "alex": 1.0, "vgg": 0.0, "dists": 0.0}
    for distance in (
        lambda shown: distortion_terms(shown, picture, Phase(0, 1, 64, l1=0, alex=1.0))["alex"],
        lambda shown: refine._distortion(shown, picture, searching),
    ):
        places = set()
        for seed in range(12):
            torch.manual_seed(seed)
            shown = torch.rand(1, 3, 64, 80, requires_grad=True)
            (gradient,) = torch.autograd.grad(distance(shown), shown)
            places.add(tuple(gradient.abs().amax((0, 1)).nonzero().amin(0).tolist()))
        assert len(places) > 8 and max(max(place) for place in places) <= 15


def test_each_vgg_network_sees_the_middle_of_one_picture():
    pictures = torch.rand(3, 3, 96, 96)
    seen = {}
    for name in ("vgg", "dists"):
        decoded = torch.rand(3, 3, 96, 96, requires_grad=True)
        weights = Phase(0, 3, 96, l1=0, alex=0, vgg_crop=64, **{name: 1.0})
        terms = distortion_terms(decoded, pictures, weights)
        (gradient,) = torch.autograd.grad(terms.pop(name), decoded)
        assert not terms
        seen[name] = gradient.abs().amax((1, 2, 3)).nonzero().flatten().tolist()
        where = gradient[seen[name][0]].abs().amax(0).nonzero()
        assert where.amin(0).tolist() == [16, 16] and where.amax(0).tolist() == [79, 79]
    assert seen == {"dists": [0], "vgg": [2]}


def test_with_a_crop_of_zero_the_vgg_networks_see_everything():
    decoded = torch.rand(2, 3, 64, 64, requires_grad=True)
    terms = distortion_terms(decoded, torch.rand(2, 3, 64, 64), Phase(0, 2, 64, l1=0, alex=0, vgg=1.0, vgg_crop=0))
    (gradient,) = torch.autograd.grad(terms["vgg"], decoded)
    assert (gradient.abs().amax(1) > 0).all()


def test_networks_that_were_loaded_to_measure_can_be_trained_with():
    for make in (dists_network, lpips_network):
        make.cache_clear()
        with torch.inference_mode():
            make()
        decoded = torch.rand(1, 3, 64, 64, requires_grad=True)
        make()(decoded, torch.rand(1, 3, 64, 64)).mean().backward()
        assert decoded.grad.abs().max() > 0
