"""TAESD-family .pth pairs: the architecture is read off keys and shapes, checked against independent builds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from torch import nn
from torch.nn import functional as F

from live.errors import ModelError
from live.latents import load_autoencoder
from live.latents.taesd import Block, TinyAutoencoderPth, build_decoder, build_encoder
from live.media import read_picture, to_image, to_tensor
from live.metrics.distortion import psnr
from live.metrics.perceptual import lpips_network

SMALL = {
    "encoder_block_out_channels": (8,) * 4,
    "decoder_block_out_channels": (8,) * 4,
    "num_encoder_blocks": (1, 1, 2, 1),
    "num_decoder_blocks": (1, 2, 1, 1),
    "latent_channels": 6,
}


@pytest.fixture(scope="module")
def tiny() -> AutoencoderTiny:
    torch.manual_seed(0)
    return AutoencoderTiny(**SMALL).eval()


def write_pair(folder: Path, tiny: AutoencoderTiny, clamp: bool = True) -> Path:
    """The published layout of a diffusers AutoencoderTiny: indices alone, the clamp being layer 0 of the decoder."""
    states: dict[str, dict[str, torch.Tensor]] = {"encoder": {}, "decoder": {}}
    for key, value in tiny.state_dict().items():
        side, _, index, rest = key.split(".", 3)
        states[side][f"{int(index) + (side == 'decoder' and clamp)}.{rest}"] = value
    for side, state in states.items():
        torch.save(state, folder / f"small_{side}.pth")
    return folder


@torch.no_grad()
def test_agrees_with_diffusers(tiny, tmp_path):
    autoencoder = load_autoencoder(str(write_pair(tmp_path, tiny)))
    assert isinstance(autoencoder, TinyAutoencoderPth)
    assert (autoencoder.factor, autoencoder.channels, autoencoder.conventions["clamp"]) == (8, 6, "3tanh")
    pictures = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    latents = tiny.encode(pictures * 2 - 1).latents
    torch.testing.assert_close(autoencoder.encode(pictures), latents, rtol=1e-4, atol=1e-5)
    decoded = (tiny.decode(latents * 9).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(autoencoder.decode(latents * 9), decoded, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_decoder_without_clamp_is_another_autoencoder(tiny, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    clamped = load_autoencoder(str(write_pair(tmp_path / "a", tiny)))
    free = load_autoencoder(str(write_pair(tmp_path / "b", tiny, clamp=False)))
    assert free.conventions["clamp"] == "none"
    assert free.identity != clamped.identity
    latents = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    softened = 3 * torch.tanh(latents / 3)
    torch.testing.assert_close(free.decode(softened), clamped.decode(latents), rtol=1e-4, atol=1e-5)


class PlainBlock(nn.Module):
    """A second, independent statement of the residual block."""

    def __init__(self, width: int):
        super().__init__()
        layers = [nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1), nn.ReLU()]
        self.conv = nn.Sequential(*layers, nn.Conv2d(width, width, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv(x) + x)


@torch.no_grad()
def test_f32_variant_with_strided_stem_and_changing_widths():
    def down(width):
        return nn.Conv2d(width, width, 3, 2, 1, bias=False)

    torch.manual_seed(0)
    stem = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU(), PlainBlock(8)]
    encoder = nn.Sequential(*stem, down(8), PlainBlock(8), nn.Conv2d(8, 5, 3, 1, 1))
    up = [nn.Upsample(scale_factor=2), nn.Conv2d(16, 8, 3, 1, 1, bias=False), PlainBlock(8)]
    head = [nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.Conv2d(8, 3, 3, 1, 1)]
    decoder = nn.Sequential(nn.Identity(), nn.Conv2d(5, 16, 3, 1, 1), nn.ReLU(), PlainBlock(16), *up, *head)
    pictures, latents = torch.rand(1, 3, 32, 32), torch.randn(1, 5, 4, 4)
    rebuilt = build_encoder(encoder.state_dict(), Path("e"))
    torch.testing.assert_close(rebuilt(pictures), encoder(pictures))
    assert rebuilt(pictures).shape == (1, 5, 4, 4)
    rebuilt = build_decoder(decoder.state_dict(), Path("d"))
    torch.testing.assert_close(rebuilt(latents), decoder(3 * torch.tanh(latents / 3)))


@torch.no_grad()
def test_block_with_pool_and_skip():
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape):
        return torch.randn(*shape, generator=generator) * 0.3

    shapes = {"0": (6, 4, 3, 3), "2": (6, 6, 3, 3), "4": (6, 6, 3, 3)}
    state = {f"b.conv.{index}.weight": tensor(*shape) for index, shape in shapes.items()}
    state |= {f"b.conv.{index}.bias": tensor(6) for index in shapes} | {"b.skip.weight": tensor(6, 4, 1, 1)}
    state |= {"b.pool.0.weight": tensor(16, 4, 1, 1), "b.pool.1.weight": tensor(16), "b.pool.1.bias": tensor(16)}
    state["b.pool.3.weight"] = tensor(4, 16, 1, 1)
    block = Block(state, "b")
    block.load_state_dict({key[2:]: value for key, value in state.items()})
    x = tensor(2, 4, 8, 8)
    pooled = F.group_norm(F.conv2d(x, state["b.pool.0.weight"]), 4, state["b.pool.1.weight"], state["b.pool.1.bias"])
    inner = y = x + F.conv2d(F.relu(pooled), state["b.pool.3.weight"])
    for index in shapes:
        inner = F.conv2d(inner, state[f"b.conv.{index}.weight"], state[f"b.conv.{index}.bias"], padding=1)
        inner = inner if index == "4" else F.relu(inner)
    torch.testing.assert_close(block(x), F.relu(inner + F.conv2d(y, state["b.skip.weight"])))


def test_odd_folders_are_refused(tiny, tmp_path):
    encoder, decoder = (write_pair(tmp_path, tiny) / f"small_{side}.pth" for side in ("encoder", "decoder"))
    state = torch.load(encoder, weights_only=True)

    def refused(words: str) -> None:
        with pytest.raises(ModelError, match=words):
            load_autoencoder(str(tmp_path))

    for odd, words in (
        ({"model": 3}, "not a state dict"),
        ({"0.weight": state["0.weight"], "mid.attention": state["0.bias"]}, "unknown tensor mid.attention"),
        ({key: value for key, value in state.items() if key != "1.conv.2.weight"}, "layer 1 is not whole"),
        (state | {"1.conv.2.weight": torch.zeros(8)}, "do not fit together"),
        (state | {"2.weight": torch.zeros(8, 9, 3, 3)}, r"does not fit pictures .* \(1, 3, 64, 64\)"),
        (state | {"9.weight": torch.zeros(4, 8, 3, 3), "9.bias": torch.zeros(4)}, r"does not fit .* \(1, 4, 8, 8\)"),
        (state | {"2.bias": torch.zeros(8)}, "do not belong together"),
    ):
        torch.save(odd, encoder)
        refused(words)
    encoder.write_bytes(b"not a zip")
    refused("not a readable file of tensors")
    torch.save(state, tmp_path / "other_encoder.pth")
    refused("2 .*_encoder.pth files")
    (tmp_path / "other_encoder.pth").unlink()
    decoder.unlink()
    refused("no small_decoder.pth beside it")


def test_a_pickle_with_code_is_never_run(tiny, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    write_pair(tmp_path, tiny)
    torch.save({"0.weight": Trap()}, tmp_path / "small_encoder.pth")
    with pytest.raises(ModelError, match="not a readable file of tensors"):
        load_autoencoder(str(tmp_path))
    assert not (tmp_path / "ran").exists()
    for damaged in (b"\x80\x02.", b"\x80\x02}s.", b"\x80\x02]r."):  # each another failure within torch
        (tmp_path / "small_encoder.pth").write_bytes(damaged)
        with pytest.raises(ModelError, match="not a readable file of tensors"):
            load_autoencoder(str(tmp_path))


def test_registered_pair_says_where_it_looks(monkeypatch):
    monkeypatch.delenv("LIVE_VAE_DIR", raising=False)
    with pytest.raises(ModelError, match="LIVE_VAE_DIR"):
        load_autoencoder("taef2")


def kodak_round_trip(names: list[str], crop: int | None) -> tuple[float, float]:
    """Mean PSNR and LPIPS-Alex of TAEF2 over Kodak photos, or the middle of each."""
    autoencoder, scores = load_autoencoder("taef2"), []
    assert (autoencoder.factor, autoencoder.channels) == (8, 32)
    assert autoencoder.statistics.std.mean() < 0.9  # the registered constants, not the default of 1
    for name in names:
        original = to_tensor(read_picture(Path(os.environ["LIVE_KODAK"]) / name))
        if crop:
            top, left = ((size - crop) // 2 for size in original.shape[2:])
            original = original[:, :, top : top + crop, left : left + crop]
        result = to_tensor(to_image(autoencoder.decode(autoencoder.encode(original))))
        scores.append((psnr(original, result).item(), lpips_network()(original, result).item()))
    return tuple(np.mean(scores, axis=0))


needs_taef2 = pytest.mark.skipif(
    not (os.environ.get("LIVE_VAE_DIR") and os.environ.get("LIVE_KODAK")), reason="needs LIVE_VAE_DIR and LIVE_KODAK"
)


@needs_taef2
def test_taef2_on_two_crops():
    psnr_db, lpips = kodak_round_trip(["kodim03.png", "kodim07.png"], 192)
    assert psnr_db > 30
    assert lpips < 0.06


@needs_taef2
@pytest.mark.slow
def test_taef2_reaches_its_known_figures():
    psnr_db, lpips = kodak_round_trip([f"kodim{index:02d}.png" for index in range(1, 9)], None)
    assert psnr_db == pytest.approx(29.9, abs=0.05)
    assert lpips == pytest.approx(0.038, abs=0.0006)
