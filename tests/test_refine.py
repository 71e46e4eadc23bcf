"""The encoder's search: better files of the embedded codecs, the same ones each time, and nothing else changed by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compressai.entropy_models import EntropyModel
from conftest import photo
from PIL import Image
from safetensors.torch import save_file
from skimage import data as photographs
from test_cli import refused

import live
from live import refine
from live.__main__ import main
from live.api import _autoencoder, _picture_codec
from live.errors import InputError
from live.media import to_tensor
from live.metrics.perceptual import ShiftedLPIPS
from live.pictures import encode_picture


def cat(width: int, height: int) -> Image.Image:
    """The middle of a photo of a cat, reduced so that its fur is fine."""
    whole = Image.fromarray(photographs.chelsea()).resize((300, 200), Image.Resampling.LANCZOS)
    return whole.crop((100, 40, 100 + width, 40 + height))


def alex(data: bytes, image: Image.Image) -> float:
    """LPIPS-Alex, not from the first pixel, lest a pattern that is not seen from there counts as a gain."""
    shifted = ShiftedLPIPS()
    with torch.no_grad():
        return shifted.distance(*(shifted.features(to_tensor(each)) for each in (live.decompress(data), image))).item()


@pytest.mark.parametrize(("codec", "quality"), [("live_plus", 3), ("glc", 3)])
def test_a_search_makes_a_better_file_of_hardly_more_bytes(codec, quality):
    """On whole photos there are none; the header aside, these are of a few hundred bytes."""
    image = cat(200, 140)
    plain, better = (live.compress(image, quality, codec=codec, refine=steps) for steps in (0, 10))
    assert alex(better, image) < 0.97 * alex(plain, image)
    assert len(better) < 1.05 * len(plain)


def test_the_same_file_each_time_and_the_codec_as_it_was():
    image = cat(96, 64)
    plain, first = live.compress(image, 2), live.compress(image, 2, refine=3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with torch.inference_mode():
        assert live.compress(image, 2, refine=3) == first != plain
    assert torch.equal(torch.get_rng_state(), before)
    codec = _picture_codec(2, None)
    assert not any(model.training for model in codec.modules() if isinstance(model, EntropyModel))
    assert live.compress(image, 2) == plain


def test_windows_move_every_position_and_their_margins_none_twice(monkeypatch):
    """Window by window, each position once: as far as in one window."""
    image, codec = cat(100, 72), _picture_codec(2, None)
    autoencoder = _autoencoder(codec, None)
    latents, _ = encode_picture(autoencoder, image)
    whole = refine.refined(codec, autoencoder, image, latents, 3)
    monkeypatch.setattr(refine, "WINDOW", 64)
    monkeypatch.setattr(refine, "MARGIN", 32)
    parts = refine.refined(codec, autoencoder, image, latents, 3)
    std = autoencoder.statistics.std.reshape(-1, 1, 1)
    reach = refine.STEP * 3
    for moved in (whole, parts):
        distance = ((moved - latents) / std).abs()
        assert moved.shape == latents.shape and (distance.amax(1) > 0).all() and distance.max() < reach
    assert not torch.equal(whole, parts)


@pytest.mark.parametrize("size", [(1, 1), (9, 70), (65, 33)])
def test_any_size(size):
    data = live.compress(photo(*size), 1, refine=1)
    assert live.decompress(data).size == size


def test_on_the_command_line(tmp_path, capsys):
    cat(64, 48).save(tmp_path / "a.png")
    assert main(["compress", str(tmp_path / "a.png"), "-q", "2", "--refine", "2", "--verify"]) == 0
    assert "2/2" in capsys.readouterr().err
    assert (tmp_path / "a.live").read_bytes() == live.compress(tmp_path / "a.png", 2, refine=2)
    (tmp_path / "a.live").unlink()
    assert main(["compress", str(tmp_path), "-q", "2", "--refine", "2"]) == 0
    assert (tmp_path / "a.png.live").read_bytes() == live.compress(tmp_path / "a.png", 2, refine=2)


def test_where_there_is_nothing_to_search_by(tmp_path, capsys):
    with pytest.raises(InputError, match="live_paper was not trained on pictures"):
        live.compress(photo(32, 32), 2, codec="live_paper", refine=1)
    for wrong in (-1, 1.5, "3", True):
        with pytest.raises(InputError, match="whole number of steps"):
            live.compress(photo(32, 32), 2, refine=wrong)
    photo(32, 32).save(tmp_path / "a.png")
    (tmp_path / "a.mp4").touch()
    save_file({"latents": torch.zeros(1, 32, 4, 4)}, tmp_path / "z.safetensors")
    once = ["--refine", "1"]
    assert "at a quality" in refused(capsys, "compress", tmp_path / "a.png", "--target-bpp", "1", *once)
    assert "is for pictures" in refused(capsys, "compress", tmp_path / "a.mp4", *once)
    assert "no pixels" in refused(capsys, "compress", tmp_path / "z.safetensors", *once)
    said = refused(capsys, "compress", tmp_path, "--codec", "live_paper", *once)
    assert "was not trained on pictures" in said


def test_loss_between_two_rates():
    """Of a rate between two anchors lambda is between theirs, geometrically."""
    weights, trades = zip(*(refine.loss_of(_picture_codec(rate, None, "glc")) for rate in (1, 1.5, 2)), strict=True)
    assert weights[0] == weights[1] and weights[0]["dists"] > 0
    assert np.isclose(trades[1] ** 2, trades[0] * trades[2])
