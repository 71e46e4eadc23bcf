"""Metrics against known values, and the round-trip command that prints them."""

from __future__ import annotations

import io
import json
import math
import os
import warnings
from pathlib import Path

import pytest
import torch
from conftest import photo

from live.command import run
from live.errors import ModelError
from live.latents import load_autoencoder
from live.media import read_picture, to_image, to_tensor
from live.metrics.distortion import ms_ssim, psnr
from live.metrics.perceptual import DISTS, LPIPS, SHIFTS, ShiftedLPIPS, dists_network, elsewhere, lpips_network
from testing import autoencoder as command

needs_shared = pytest.mark.skipif(
    not os.environ.get("LIVE_SHARED"), reason="needs LIVE_SHARED (metrics/ex_ref.png ...)"
)


@pytest.fixture(scope="module")
def perceptual() -> dict[str, LPIPS | DISTS]:
    """The networks, where their weights are in the cache or can be fetched."""
    try:
        return {"alex": lpips_network("alex"), "dists": dists_network()}
    except ModelError as refusal:
        pytest.skip(str(refusal))


def test_the_networks_load_without_warnings(perceptual):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LPIPS("alex")


def sample(name: str) -> torch.Tensor:
    return to_tensor(read_picture(Path(os.environ["LIVE_SHARED"]) / "metrics" / f"{name}.png"))


def test_psnr_of_a_known_offset():
    a = torch.full((2, 3, 8, 8), 0.5)
    b = a.clone()
    b[0] += 0.1
    values = psnr(a, b)
    assert values.shape == (2,)
    assert values[0].item() == pytest.approx(20.0, abs=1e-4)
    assert math.isinf(values[1])
    b[1, 0] += 0.1  # one channel of three
    assert psnr(a, b)[1].item() == pytest.approx(20 + 10 * math.log10(3), abs=1e-4)


def test_psnr_of_one_eighth_bit_step():
    a = to_tensor(photo(16, 16)).clamp(max=254 / 255)
    assert psnr(a, a + 1 / 255).item() == pytest.approx(20 * math.log10(255), abs=1e-3)


def test_ms_ssim_range_order_and_size():
    a = to_tensor(photo(161, 170))
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    slight, strong = (ms_ssim(a, (a + scale * noise).clamp(0, 1)).item() for scale in (0.02, 0.2))
    assert ms_ssim(a, a).tolist() == pytest.approx([1.0])
    assert 0 <= strong < slight < 1
    assert ms_ssim(a[..., :160], a[..., :160]) is None


def test_perceptual_metrics_of_identical_and_noisy_pictures(perceptual):
    a = torch.cat([to_tensor(photo(64, 64)), to_tensor(photo(64, 64, 1))])
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    for metric in (perceptual["alex"], perceptual["dists"]):
        assert metric(a, a).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
        slight, strong = (metric(a, (a + scale * noise).clamp(0, 1)) for scale in (0.05, 0.3))
        assert (slight > 0).all()
        assert (strong > slight).all()


def test_what_alexnet_does_not_see_from_one_place_it_sees_from_others(perceptual):
    """A pattern is sought that LPIPS-Alex hardly minds, looking from the first pixel: from other places it is not hidden."""
    picture = to_tensor(photo(96, 80))
    noise = 0.05 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    pattern = noise.clone().requires_grad_()
    adam = torch.optim.Adam([pattern], lr=0.01)
    for _ in range(30):
        loss = perceptual["alex"](picture + pattern, picture).mean() + 50 * (pattern - noise).square().mean()
        (pattern.grad,) = torch.autograd.grad(loss, pattern)
        adam.step()
    shifted = ShiftedLPIPS()
    rise = []
    with torch.no_grad():
        seen = shifted.features(picture)
        for each in (picture + noise, picture + pattern):
            value = shifted.distance(shifted.features(each), seen)
            crops = [perceptual["alex"](each[:, :, top:, left:], picture[:, :, top:, left:]) for top, left in SHIFTS]
            assert value.shape == (1,) and value.item() == pytest.approx(torch.cat(crops).mean().item(), rel=1e-5)
            rise.append(value.item() / perceptual["alex"](each, picture).item())
        assert shifted.distance(seen, seen).item() == 0
    assert 0.9 < rise[0] < 1.1 and rise[1] > 1.3


def test_another_place_is_the_same_of_both_and_one_of_all():
    torch.manual_seed(0)
    numbers = torch.arange(40.0 * 50).reshape(1, 1, 40, 50)
    places = set()
    for _ in range(200):
        a, b = elsewhere(numbers, numbers + 1)
        assert torch.equal(a + 1, b) and torch.equal(a, numbers[:, :, -a.shape[2] :, -a.shape[3] :])
        places.add((40 - a.shape[2], 50 - a.shape[3]))
    assert {top for top, _ in places} == set(range(10)) and {left for _, left in places} == set(range(16))
    small = torch.zeros(1, 3, 31, 20)
    assert elsewhere(small)[0].shape == small.shape


@needs_shared
@pytest.mark.parametrize(
    ("metric", "first", "second", "known"),
    [
        ("alex", "ex_ref", "ex_p0", 0.722),
        ("alex", "ex_ref", "ex_p1", 0.138),
        ("vgg", "ex_ref", "ex_p0", 0.569),
        ("vgg", "ex_ref", "ex_p1", 0.422),
        ("dists", "dists_r0", "dists_r1", 0.335),
    ],
)
def test_published_values(perceptual, metric, first, second, known):
    network = lpips_network("vgg") if metric == "vgg" else perceptual[metric]
    assert network(sample(first), sample(second)).item() == pytest.approx(known, abs=6e-4)


@pytest.fixture
def folder(tmp_path) -> Path:
    photo(48, 40).save(tmp_path / "a.png")
    photo(37, 35, 1).save(tmp_path / "b.png")
    photo(20, 24, 2).save(tmp_path / "c.png")
    return tmp_path


def test_round_trip_command(perceptual, small_live, folder, capsys):
    assert command.main(["--vae", "compact", "--data", str(folder), "--threads", "1", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    identity = load_autoencoder("compact").identity
    assert (summary["pictures"], summary["threads"], summary["identity"]) == (3, 1, identity)
    assert summary["vae"] == "compact"
    assert 0 < summary["encode_s"] < 60
    assert 0 < summary["decode_s"] < 60
    assert 5 < summary["psnr"] < 60
    assert 0 < summary["lpips_alex"] < 2
    assert 0 < summary["dists"] < 1


def test_round_trip_scores_the_eight_bit_picture_at_its_own_size(perceptual, small_live, folder):
    row = command.score(load_autoencoder("compact"), folder / "b.png")
    autoencoder, original = load_autoencoder("compact"), to_tensor(photo(37, 35, 1))
    padded = torch.nn.functional.pad(original, (0, 3, 0, 5), mode="replicate")
    result = to_image(autoencoder.decode(autoencoder.encode(padded))[:, :, :35, :37])
    assert row["psnr"] == pytest.approx(psnr(original, to_tensor(result)).item())
    assert command.score(autoencoder, folder / "c.png")["lpips_alex"] is None  # too small for AlexNet


def test_round_trip_table_and_refusals(perceptual, small_live, folder, tmp_path, capsys):
    assert command.main(["--data", str(folder), "--limit", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["picture", *command.COLUMNS]
    assert out[1].startswith("a.png")
    assert "1 pictures" in out[-1]
    for arguments, words in (
        (["--data", str(folder / "none")], "is not a folder"),
        (["--data", str(folder), "--vae", "nope"], "no autoencoder is called nope"),
        (["--data", str(folder), "--limit", "0"], "at least 1"),
    ):
        assert run(lambda arguments=arguments: command.main(arguments)) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("live: ")
        assert words in captured.err
        assert captured.err.count("\n") == 1


def test_unchanged_pictures_have_no_finite_mean():
    assert command._mean([math.inf, 30.0]) is None
    assert command._mean([None, None]) is None
    assert command._mean([30.0, None, 40.0]) == 35.0


def test_damaged_cached_weights_are_fetched_again(tmp_path, monkeypatch):
    """The converted file is a cache: junk in it is replaced, and offline it is a refusal in words."""
    from live.errors import ModelError
    from live.metrics import weights

    monkeypatch.setenv("LIVE_CACHE", str(tmp_path))
    path = tmp_path / "metrics" / f"dists-{weights.METRIC_WEIGHTS['dists'].sha256[:16]}.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"junk")

    def offline(artefact):
        raise ModelError("cannot fetch")

    monkeypatch.setattr(weights, "fetch_member", offline)
    with pytest.raises(ModelError, match="cannot fetch"):
        weights.metric_weights("dists")
    state = {"alpha": torch.ones(3), "beta": torch.zeros(3)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    monkeypatch.setattr(weights, "fetch_member", lambda artefact: buffer.getvalue())
    assert torch.equal(weights.metric_weights("dists")["alpha"], state["alpha"])
    monkeypatch.setattr(weights, "fetch_member", offline)
    assert torch.equal(weights.metric_weights("dists")["alpha"], state["alpha"])


@pytest.mark.parametrize("size", [(64, 48), (33, 17)])
def test_the_fast_convolution_changes_no_digit_that_is_shown(size):
    """Without gradients VGG runs by Winograd's method where the processor has it, with gradients never."""
    try:
        metrics = [lpips_network("vgg"), dists_network()]
    except ModelError as refusal:
        pytest.skip(str(refusal))
    a, b = to_tensor(photo(*size)), to_tensor(photo(*size, 1))
    for metric in metrics:
        plain = metric(a, b).item()
        with torch.inference_mode():
            assert metric(a, b).item() == pytest.approx(plain, abs=2e-5)
