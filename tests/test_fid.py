"""FID and KID: the network's features, the distances in closed form, the protocol's patches, and the command."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photo
from scipy.linalg import sqrtm
from torch.nn import functional as F

from live.command import run
from live.errors import InputError, ModelError
from live.media import to_tensor
from live.metrics import distances
from live.metrics.distances import check_enough, frechet_distance, kernel_distance, patches
from live.metrics.inception import FEATURES, Inception, inception_network, resize
from live.registry import METRIC_WEIGHTS, fetch_member
from testing import fid as module
from testing.evaluate import evaluate


@pytest.fixture(scope="module")
def network() -> Inception:
    """The network, where its weights are in the cache or can be fetched."""
    try:
        return inception_network()
    except ModelError as refusal:
        pytest.skip(str(refusal))


def samples(count: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def with_moments(mean: torch.Tensor, root: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Samples whose mean and covariance root @ root.T are those exactly, and not only in expectation."""
    white = samples(50, len(mean), seed)
    white = white - white.mean(0)
    inverse = torch.linalg.inv(torch.linalg.cholesky(torch.cov(white.T)))
    return white @ inverse.T @ root.T + mean


def test_fid_of_equal_sets_is_zero():
    a = samples(300, 40, 0)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a.float(), a.flip(0).float()) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a[:10], a[:10]) == pytest.approx(0, abs=1e-9), "singular covariances"


def test_fid_of_gaussians_that_commute():
    mean, deviations = torch.tensor([1.0, -2, 0.5]).double(), torch.tensor([0.1, 2, 30]).double()
    others = torch.tensor([0.7, 2.5, 1e-6]).double()
    rotation = torch.linalg.qr(samples(3, 3, 1))[0]
    a = with_moments(torch.zeros(3).double(), rotation @ deviations.diag())
    b = with_moments(mean, rotation @ others.diag(), seed=1)
    expected = mean.square().sum() + (deviations - others).square().sum()
    assert frechet_distance(a, b) == frechet_distance(b, a) == pytest.approx(float(expected), rel=1e-9)


def test_fid_of_gaussians_that_do_not_commute():
    mean = torch.tensor([0.5, 0.25]).double()
    roots = torch.tensor([[[2.0, 0], [1, 0.5]], [[0.3, 0.9], [-1, 1]]]).double()
    a, b = (with_moments(shift, root) for shift, root in zip((mean, 0 * mean), roots, strict=True))
    one, two = (root @ root.T for root in roots)
    product = one @ two  # in two dimensions the trace of a matrix's root is that of its trace and determinant
    common = (product.trace() + 2 * product.det().sqrt()).sqrt()
    expected = mean.square().sum() + one.trace() + two.trace() - 2 * common
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-9)


def test_fid_agrees_with_the_matrix_square_root():
    a, b = samples(200, 30, 2), samples(250, 30, 3) @ samples(30, 30, 4)
    one, two = (np.cov(features.numpy(), rowvar=False) for features in (a, b))
    common = sqrtm(one @ two).real
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(one + two - 2 * common)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_kid_is_that_of_its_definition(monkeypatch):
    """All pairs, one by one; with subsets of the whole set there is nothing to draw."""
    monkeypatch.setattr(distances, "SUBSET", 5)
    a, b = samples(5, 3, 0), samples(5, 3, 1) + 1

    def kernel(x, y):
        return (float(x @ y) / 3 + 1) ** 3

    within = [kernel(s[i], s[j]) / 20 for s in (a, b) for i in range(5) for j in range(5) if i != j]
    across = [kernel(x, y) / 25 for x in a for y in b]
    mean, deviation = kernel_distance(a, b)
    assert mean == pytest.approx(sum(within) - 2 * sum(across))
    assert deviation == pytest.approx(0, abs=1e-9)


def test_kid_has_no_bias_and_a_fixed_seed(monkeypatch):
    """Halves of one set are at 0 within the noise, on either side of it; a small shift is far outside."""
    monkeypatch.setattr(distances, "SUBSET", 50)
    halves = [kernel_distance(*samples(400, 8, seed).chunk(2)) for seed in range(20)]
    means = torch.tensor([mean for mean, _ in halves])
    assert (means < 0).any() and (means > 0).any()
    assert abs(means.mean()) < 3 * means.std() / len(means) ** 0.5
    a, b = samples(400, 8, 0).chunk(2)
    shifted = kernel_distance(a, b + 0.5)
    assert shifted[0] > 10 * means.abs().max() and shifted[1] > 0
    assert shifted == kernel_distance(a, b + 0.5), "the same subsets at every call"


@pytest.mark.parametrize(
    ("width", "height", "side", "expected"),
    [
        (768, 512, 64, 12 * 8 + 11 * 7),
        (768, 512, 256, 3 * 2 + 2 * 1),
        (2001, 1367, 256, 7 * 5 + 7 * 4),
        (96, 96, 64, 2),
        (96, 95, 64, 1),
        (300, 64, 64, 4),
        (63, 700, 64, 0),
        (20, 20, 64, 0),
    ],
)
def test_the_protocol_s_patch_counts(width, height, side, expected):
    assert len(patches(torch.empty(1, 3, height, width, device="meta"), side)) == expected
    assert patches(torch.empty(1, 3, height, width, device="meta"), side).shape[1:] == (3, side, side)


def test_patches_are_cut_row_by_row_and_then_half_a_patch_further():
    picture = to_tensor(photo(203, 140))
    found = patches(picture, 64)
    corners = [(top, left) for top in (0, 64) for left in (0, 64, 128)] + [(32, 32), (32, 96)]
    assert len(found) == len(corners)
    for patch, (top, left) in zip(found, corners, strict=True):
        assert torch.equal(patch, picture[0, :, top : top + 64, left : left + 64])


def test_too_few_patches_are_refused():
    check_enough(FEATURES + 1, 64)
    with pytest.raises(InputError, match=r"2048 patches of 64 px are too few.*singular; take more pictures$"):
        check_enough(FEATURES, 64)
    with pytest.raises(InputError, match="or smaller patches"):
        check_enough(192, 256)


def test_resizing_is_that_of_the_original_graph():
    ramp = torch.arange(64.0).repeat(3, 48, 1)[None]
    resized = resize(ramp)
    assert resized.shape == (1, 3, 299, 299)
    expected = (torch.arange(299) * 64 / 299).clamp(max=63)  # not centred, and constant behind the last pixel
    assert torch.allclose(resized, expected.expand(1, 3, 299, 299), atol=1e-4)
    square = to_tensor(photo(299, 299))
    assert torch.equal(resize(square), square)


def test_features_are_deterministic_and_known(network):
    pictures = torch.cat([to_tensor(photo(64, 64, seed)) for seed in range(3)])
    found = network(pictures)
    assert found.shape == (3, FEATURES) and found.dtype == torch.float32 and (found >= 0).all()
    assert torch.equal(found, network(pictures))
    assert torch.allclose(network(pictures[1:2]), found[1:2], atol=1e-4), "whatever stands beside it"
    assert found[0, KNOWN_AT].tolist() == pytest.approx(KNOWN, abs=1e-3)


KNOWN_AT = [0, 1, 179, 926, 2046]
KNOWN = [1.3744, 0.0571, 2.9541, 2.5948, 0.6587]
"""Features of the published TorchScript network, run as it is."""


@pytest.mark.slow
def test_the_network_is_the_published_one(network):
    """Against the archive's own TorchScript, which nothing but this test runs, after its hash was checked."""
    try:
        script = torch.jit.load(io.BytesIO(fetch_member(METRIC_WEIGHTS["inception"])))
    except ModelError as refusal:
        pytest.skip(str(refusal))
    for size in ((64, 64), (256, 256), (75, 91)):
        pictures = torch.cat([to_tensor(photo(*size, seed)) for seed in range(2)])
        with torch.inference_mode():
            assert torch.allclose(network(pictures), script((resize(pictures) * 255 - 128) / 128), atol=1e-3)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Originals and decoded pictures; other formats, a folder of its own, and what ``live decompress`` makes of names."""
    reference, decoded = tmp_path / "set", tmp_path / "decoded"
    for folder in (reference / "sub", decoded / "sub"):
        folder.mkdir(parents=True)
    photo(130, 100).save(reference / "a.png")
    photo(96, 97, 1).save(reference / "sub" / "b.png")
    photo(130, 100).save(decoded / "a.jpg", quality=5)
    photo(96, 97, 1).save(decoded / "sub" / "b.png.png")
    return reference, decoded


@pytest.fixture
def small(monkeypatch) -> None:
    """Few patches are enough."""
    monkeypatch.setattr(distances, "LEAST", 5)
    monkeypatch.setattr(distances, "SUBSET", 4)
    monkeypatch.setattr(distances, "SUBSETS", 5)


def command(capsys, *arguments: object) -> tuple[int, list[str], str]:
    code = run(lambda: module.main([str(argument) for argument in arguments]))
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def test_the_command_on_two_folders(network, small, folders, capsys):
    reference, decoded = folders
    code, lines, _ = command(capsys, "--reference", reference, "--decoded", reference, "--patch", 64, "--json")
    assert code == 0
    same = json.loads(lines[0])
    assert (same["patches"], same["patch"]) == (2 + 1 + 1 + 1, 64)
    assert same["fid"] == pytest.approx(0, abs=1e-4)
    code, lines, _ = command(capsys, "--reference", reference, "--decoded", decoded, "--patch", 64)
    assert code == 0 and len(lines) == 1
    words = lines[0].split()
    assert words[::2] == ["fid", "kid", "kid_std", "patches", "patch"]
    assert float(words[1]) > 1


def test_the_command_on_files_that_evaluate_kept(small, folders, tmp_path, capsys, monkeypatch):
    """The features do not matter here: means of 8x8 px."""
    monkeypatch.setattr(module, "inception_network", lambda: lambda batch: F.avg_pool2d(batch, 8).flatten(1))
    reference, _ = folders
    points = evaluate(reference, ["jpeg"], tmp_path / "out", ["psnr"], ["original"])
    common = ["--reference", reference, "--points", tmp_path / "out" / "points.csv", "--codec", "jpeg", "--patch", 64]
    code, lines, _ = command(capsys, *common, "--setting", 2, "--json")
    assert code == 0 and len(lines) == 1
    row = json.loads(lines[0])
    mine = points[points["setting"] == 2]
    assert (row["codec"], row["setting"], row["patches"]) == ("jpeg", 2, 5)
    assert row["bpp"] == pytest.approx(mine["bpp"].mean(), abs=1e-5)
    code, lines, _ = command(capsys, *common, "--json")
    rows = [json.loads(line) for line in lines]
    assert code == 0 and rows[0] == row and [row["setting"] for row in rows] == [2, 5, 8, 12, 20, 45]
    assert rows[0]["fid"] > rows[-1]["fid"] > 0
    for arguments, word in (
        ([*common, "--setting", "3"], "no setting 3 of jpeg; they hold 2, 5, 8"),
        ([*common[:-3], "vvc"], "no points of vvc"),
        ([*common[:-3], "nothing"], "unknown codec nothing"),
        (["--reference", tmp_path, *common[2:]], "no dataset"),
    ):
        code, lines, error = command(capsys, *arguments)
        assert code == 2 and not lines and word in error and error.count("\n") == 1
    (tmp_path / "out" / "files" / "jpeg" / "a.png_q45.jpg").unlink()
    code, lines, error = command(capsys, *common)
    assert code == 2 and not lines and "is not there" in error


def test_the_command_refuses_in_one_line_before_any_work(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "inception_network", lambda: pytest.fail("the network was loaded"))
    reference, decoded = folders
    common = ["--reference", reference, "--decoded", decoded]
    for arguments, word in (
        ([*common, "--patch", 64], "5 patches of 64 px are too few"),
        (common, "0 patches of 256 px are too few"),
        ([*common, "--patch", 100], "--patch"),
        (["--reference", reference], "--decoded"),
        ([*common, "--points", tmp_path / "points.csv"], "--points"),
        ([*common, "--codec", "jpeg"], "--points goes with --codec"),
        ([*common, "--setting", "1"], "--setting"),
        (["--reference", tmp_path / "none", "--decoded", decoded], "not a folder"),
        (["--reference", reference / "sub", "--decoded", decoded], "b.png has no counterpart"),
        (["--reference", reference, "--points", tmp_path / "no.csv", "--codec", "jpeg"], "no results at"),
    ):
        code, lines, error = command(capsys, *arguments)
        assert code == 2 and not lines and word in error and error.count("\n") == 1, (word, error)


def test_pictures_that_are_not_counterparts_are_refused(folders, capsys):
    reference, decoded = folders
    photo(130, 99).save(decoded / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg is 130 x 99, its original 130 x 100"):
        module.pairs(reference, decoded)
    (decoded / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"a\.png has no counterpart"):
        module.pairs(reference, decoded)
    photo(130, 100).save(reference / "a.bmp")
    with pytest.raises(InputError, match="have the same name"):
        module.pairs(reference, decoded)
