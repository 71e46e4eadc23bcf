"""Autoencoders as plugs: conventions applied once, identities that mean something, refusals in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from live.errors import InputError, ModelError
from live.latents import REGISTERED, load_autoencoder, registered
from live.latents.base import Statistics
from live.latents.compact import CompactAutoencoder
from live.latents.diffusers import WEIGHTS, DiffusersAutoencoder
from live.latents.statistics import FILE_NAME, measure

SCALE = 0.18215
BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 16, 32, 32),
}


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def kl_folder(tmp_path_factory) -> Path:
    """An untrained AutoencoderKL of SD's shape, narrowed."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("kl")
    AutoencoderKL(**BLOCKS, latent_channels=4, norm_num_groups=8, scaling_factor=SCALE).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    widths = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    AutoencoderTiny(**widths, num_encoder_blocks=(1, 1, 2, 1), num_decoder_blocks=(1, 2, 1, 1)).save_pretrained(folder)
    return folder


def variant(folder: Path, target: Path, **changes: object) -> Path:
    """A copy of a model's folder with other values in its config.json."""
    shutil.copytree(folder, target)
    config = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


def scaled_weight(folder: Path, target: Path, name: str, by: float) -> Path:
    """A copy of a model's folder with one weight tensor multiplied."""
    variant(folder, target)
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {name: tensors[name] * by}, target / WEIGHTS)
    return target


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return a.shape == b.shape and (a - b).abs().max().item() <= tolerance * max(1.0, b.abs().max().item())


@torch.no_grad()
def test_kl_applies_mode_scale_and_range_once(kl_folder, pictures):
    autoencoder, net = load_autoencoder(str(kl_folder)), AutoencoderKL.from_pretrained(kl_folder)
    latents = autoencoder.encode(pictures)
    assert (autoencoder.factor, autoencoder.channels, latents.shape) == (8, 4, (2, 4, 6, 8))
    assert close(latents, net.encode(pictures * 2 - 1).latent_dist.mode() * SCALE)
    assert torch.equal(latents, autoencoder.encode(pictures))
    assert close(autoencoder.decode(latents), (net.decode(latents / SCALE).sample / 2 + 0.5).clamp(0, 1))
    assert autoencoder.conventions == {"class": "AutoencoderKL", "input_range": "-1..1", "scale": SCALE, "shift": 0.0}


@torch.no_grad()
def test_kl_shift_and_channel_statistics(kl_folder, pictures, tmp_path):
    raw = AutoencoderKL.from_pretrained(kl_folder).encode(pictures * 2 - 1).latent_dist.mode()
    plain = load_autoencoder(str(kl_folder))
    shifted = load_autoencoder(str(variant(kl_folder, tmp_path / "shift", scaling_factor=0.36, shift_factor=0.12)))
    assert close(shifted.encode(pictures), (raw - 0.12) * 0.36)
    assert close(shifted.decode((raw - 0.12) * 0.36), plain.decode(raw * SCALE))
    mean, std = torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([1.0, 2.0, 0.5, 4.0])
    by_channel = variant(kl_folder, tmp_path / "channel", latents_mean=mean.tolist(), latents_std=std.tolist())
    expected = (raw - mean.reshape(1, 4, 1, 1)) * SCALE / std.reshape(1, 4, 1, 1)
    assert close(load_autoencoder(str(by_channel)).encode(pictures), expected)


@torch.no_grad()
def test_kl_reference_range(kl_folder, pictures):
    quirk, net = DiffusersAutoencoder(kl_folder, input_range="0..1"), AutoencoderKL.from_pretrained(kl_folder)
    latents = quirk.encode(pictures)
    assert close(latents, net.encode(pictures).latent_dist.mode() * SCALE)
    assert close(quirk.decode(latents), net.decode(latents / SCALE).sample.clamp(0, 1))
    with pytest.raises(InputError, match="input range"):
        DiffusersAutoencoder(kl_folder, input_range="0..255")


@torch.no_grad()
def test_kl_posterior_is_what_diffusers_draws_from(kl_folder, pictures):
    autoencoder, net = load_autoencoder(str(kl_folder)), AutoencoderKL.from_pretrained(kl_folder)
    mean, std = autoencoder.posterior(pictures)
    assert close(mean, autoencoder.encode(pictures))
    drawn = net.encode(pictures * 2 - 1).latent_dist.sample(torch.Generator().manual_seed(3)) * SCALE
    assert close(mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(3)), drawn)


def test_what_training_decodes_is_what_is_decoded(kl_folder, tiny_folder, pictures):
    for autoencoder in (load_autoencoder(str(folder)) for folder in (kl_folder, tiny_folder, "compact")):
        latents = autoencoder.encode(pictures).clone().requires_grad_()
        again = autoencoder.reconstruct(latents)
        assert close(again.detach().clamp(0, 1), autoencoder.decode(latents.detach()))
        again.mean().backward()
        assert latents.grad.abs().max() > 0


def test_identity_follows_weights_and_conventions_only(kl_folder, tmp_path):
    identity = load_autoencoder(str(kl_folder)).identity
    assert identity == load_autoencoder(str(variant(kl_folder, tmp_path / "copy", sample_size=512))).identity
    assert identity == load_autoencoder(str(kl_folder), dtype="bfloat16").identity
    others = {
        load_autoencoder(str(scaled_weight(kl_folder, tmp_path / "weight", "quant_conv.bias", 1.01))).identity,
        load_autoencoder(str(variant(kl_folder, tmp_path / "scale", scaling_factor=0.2))).identity,
        load_autoencoder(str(variant(kl_folder, tmp_path / "shift", shift_factor=0.1))).identity,
        DiffusersAutoencoder(kl_folder, input_range="0..1").identity,
    }
    assert len(others | {identity}) == 5


def test_half_precision_falls_back_to_float32(kl_folder, pictures, tmp_path):
    full = load_autoencoder(str(kl_folder))
    half = load_autoencoder(str(kl_folder), dtype="bfloat16").encode(pictures)
    assert half.dtype == torch.float32
    assert not torch.equal(half, full.encode(pictures))
    assert close(half, full.encode(pictures), 0.1)
    loud = scaled_weight(kl_folder, tmp_path / "encoder", "encoder.conv_in.weight", 1e6)
    expected = load_autoencoder(str(loud)).encode(pictures)
    assert torch.equal(load_autoencoder(str(loud), dtype="float16").encode(pictures), expected)
    loud = scaled_weight(kl_folder, tmp_path / "decoder", "decoder.conv_in.weight", 1e6)
    latents = full.encode(pictures)
    expected = load_autoencoder(str(loud)).decode(latents)
    assert torch.equal(load_autoencoder(str(loud), dtype="float16").decode(latents), expected)


def test_values_that_are_not_finite_are_refused(kl_folder, pictures, tmp_path):
    broken = scaled_weight(kl_folder, tmp_path / "nan", "encoder.conv_in.weight", float("nan"))
    with pytest.raises(ModelError, match="unusable"):
        load_autoencoder(str(broken), dtype="float16").encode(pictures)
    with pytest.raises(InputError, match="NaN"):
        load_autoencoder(str(kl_folder)).encode(pictures * float("nan"))
    with pytest.raises(InputError, match="unknown precision float8"):
        load_autoencoder(str(kl_folder), dtype="float8")


@torch.no_grad()
def test_tiny_keeps_diffusers_ranges(tiny_folder, pictures):
    autoencoder, net = load_autoencoder(str(tiny_folder)), AutoencoderTiny.from_pretrained(tiny_folder)
    latents = autoencoder.encode(pictures)
    assert (autoencoder.factor, autoencoder.channels, latents.shape) == (8, 4, (2, 4, 6, 8))
    assert close(latents, net.encode(pictures * 2 - 1).latents)
    assert close(autoencoder.decode(latents), (net.decode(latents).sample / 2 + 0.5).clamp(0, 1))
    with pytest.raises(InputError, match="no posterior"):
        autoencoder.posterior(pictures)
    with pytest.raises(InputError, match="does not fit AutoencoderTiny"):
        DiffusersAutoencoder(tiny_folder, input_range="0..1")


def test_pipeline_folder_and_local_mirror_of_a_registered_name(kl_folder, tmp_path, monkeypatch):
    shutil.copytree(kl_folder, tmp_path / "sd-vae-ft-mse" / "vae")
    monkeypatch.setenv("LIVE_VAE_DIR", str(tmp_path))
    by_name, reference = load_autoencoder("sd-vae-ft-mse"), load_autoencoder("sd-vae-ft-mse-01")
    assert by_name.identity == load_autoencoder(str(tmp_path / "sd-vae-ft-mse")).identity
    assert (by_name.name, reference.conventions["input_range"]) == ("sd-vae-ft-mse", "0..1")


def test_hub_is_asked_only_for_what_the_cache_lacks(kl_folder, monkeypatch):
    asked = []

    def snapshot(repository, allow_patterns, local_files_only):
        asked.append((repository, allow_patterns[0], local_files_only))
        return str(kl_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert load_autoencoder("some/vae").channels == 4
    assert asked == [("some/vae", "config.json", True)]
    with pytest.raises(ModelError, match=r"some/pipeline \(unet\).*connect once, or give a local folder"):
        load_autoencoder("some/pipeline/unet")
    assert asked[1:] == [("some/pipeline", "unet/config.json", True), ("some/pipeline", "unet/config.json", False)]


def test_offline_hub_is_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"nobody/no-such-vae.*connect once, or give a local folder") as refusal:
        load_autoencoder("nobody/no-such-vae")
    assert "\n" not in str(refusal.value)


def test_damaged_folders_are_refused(kl_folder, tmp_path):
    with pytest.raises(ModelError, match="class AutoencoderDC"):
        load_autoencoder(str(variant(kl_folder, tmp_path / "class", _class_name="AutoencoderDC")))
    for changes in ({"block_out_channels": [16, 16, 32, 64]}, {"norm_num_groups": 7}, {"layers_per_block": 2}):
        target = variant(kl_folder, tmp_path / next(iter(changes)), **changes)
        with pytest.raises(ModelError, match=r"fetch (it|both) again"):
            load_autoencoder(str(target))
    (variant(kl_folder, tmp_path / "short") / WEIGHTS).write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match="cannot load the autoencoder in"):
        load_autoencoder(str(tmp_path / "short"))
    (tmp_path / "short" / WEIGHTS).unlink()
    (tmp_path / "short" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ModelError, match="safe_serialization"):
        load_autoencoder(str(tmp_path / "short"))
    (tmp_path / "short" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not readable JSON"):
        load_autoencoder(str(tmp_path / "short"))
    with pytest.raises(ModelError, match="impossible scale"):
        load_autoencoder(str(variant(kl_folder, tmp_path / "std", latents_mean=[0.0] * 4, latents_std=[0.0] * 4)))


def test_statistics_sources(kl_folder, tmp_path, pictures):
    plain = load_autoencoder(str(kl_folder))
    assert (plain.statistics.mean.tolist(), plain.statistics.std.tolist()) == ([0.0] * 4, [1.0] * 4)
    measured = measure(plain.encode, [pictures[:1], pictures[1:]])
    latents = plain.encode(pictures)
    assert close(measured.mean, latents.mean((0, 2, 3)))
    assert close(measured.std, latents.std((0, 2, 3), correction=0))
    folder = variant(kl_folder, tmp_path / "measured")
    (folder / FILE_NAME).write_text(json.dumps({"mean": measured.mean.tolist(), "std": measured.std.tolist()}))
    assert torch.equal(load_autoencoder(str(folder)).statistics.std, measured.std)
    given = DiffusersAutoencoder(folder, statistics=Statistics(torch.zeros(4), torch.full((4,), 2.0)))
    assert given.statistics.std.tolist() == [2.0] * 4
    for text in ("{}", '{"mean": [0], "std": [1]}', '{"mean": [0, 0, 0, 0], "std": [1, 1, 1, 0]}'):
        (folder / FILE_NAME).write_text(text)
        with pytest.raises(ModelError, match=FILE_NAME):
            load_autoencoder(str(folder))


def test_names(small_live, tmp_path):
    assert [name for name, _, _ in registered()] == list(REGISTERED)
    compact = load_autoencoder("compact")
    assert isinstance(compact, CompactAutoencoder)
    assert load_autoencoder(str(small_live / "compact.safetensors")).identity == compact.identity
    with pytest.raises(InputError, match="float32 only"):
        load_autoencoder("compact", dtype="float16")
    for unknown in ("nope", "a/b/c/d", "missing/compact.safetensors", "../nope"):
        with pytest.raises(ModelError, match=r"known names: compact, glc-compact, sd-vae-ft-mse"):
            load_autoencoder(unknown)
    with pytest.raises(ModelError, match="holds no autoencoder"):
        load_autoencoder(str(tmp_path))
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="is not an autoencoder"):
        load_autoencoder(str(tmp_path / "weights.bin"))
