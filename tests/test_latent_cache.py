"""The latent cache: what it holds is what the autoencoder makes, and a stale or damaged one is refused in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import photo

from live.checkpoints import load_codec
from live.command import run
from live.errors import ConfigError, ModelError, OutputError
from live.latents import load_autoencoder
from live.media import read_picture, to_tensor
from training import export, latent_cache, train_codec
from training.data import Photos, is_validation

PAPER = """
codec: live_paper
schedule: {steps: 6, warmup: 0, validate_every: 3, lr: 1e-3, patience: 1}
phases: [{start: 0, batch: 4, crop: 64, l1: 0.0, alex: 0.0, latent_norm: 1.0}]
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    names = [f"{i}.png" for i in range(60)]
    held_out = [name for name in names if is_validation(Path(name))][:2]
    training = [name for name in names if not is_validation(Path(name))][:4]
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate(held_out + training):
        photo(101, 77, seed).save(folder / name)
    return folder


@pytest.fixture
def cache(photos: Path, tmp_path: Path, small_live: Path) -> Path:
    assert latent_cache.main(["--data", str(photos), "--out", str(tmp_path / "cache"), "--dtype", "float32"]) == 0
    return tmp_path / "cache"


def test_it_holds_the_latents_of_every_photo(cache, photos):
    autoencoder = load_autoencoder("compact")
    train, held_out = latent_cache.read(cache, photos, autoencoder, 8)
    assert len(train) == 4 and len(held_out) == 2
    assert all(is_validation(path) for path in held_out.files)
    picture = to_tensor(read_picture(train.files[0]))[:, :, 2:74, 2:98]  # the middle, in multiples of 8
    assert torch.equal(train.tensors[0], autoencoder.encode(picture)[0])
    batch, files = train.batch(1, 0, 4, 8)
    assert batch.shape == (4, 4, 8, 8) and len(set(files)) == 4


def test_a_stale_or_damaged_cache_is_refused(cache, photos, tmp_path):
    autoencoder = load_autoencoder("compact")
    with pytest.raises(OutputError, match="already"):
        latent_cache.build(photos, autoencoder, cache)
    index = json.loads((cache / "index.json").read_text())
    (cache / "index.json").write_text(json.dumps(index | {"autoencoder": "0" * 64}))
    with pytest.raises(ModelError, match="not of this"):
        latent_cache.read(cache, photos, autoencoder, 8)
    (cache / "index.json").write_text(json.dumps(index))
    shard = cache / index["shards"][0]["file"]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match="damaged"):
        latent_cache.read(cache, photos, autoencoder, 8)
    shard.write_bytes(whole)
    changed = sorted(photos.iterdir())[0]
    photo(101, 77, 99).save(changed)
    with pytest.raises(ModelError, match=rf"stale: 1 pictures differ \({changed.name}\)"):
        latent_cache.read(cache, photos, autoencoder, 8)
    with pytest.raises(ModelError, match="not a latent cache"):
        latent_cache.read(tmp_path, photos, autoencoder, 8)


def test_paper_trains_from_the_cache(cache, photos, tmp_path):
    """The published codec with its own loss: lambda times the norm of the latents' error, plus bits a pixel."""
    config = tmp_path / "paper.yaml"
    config.write_text(PAPER)
    options = ["--config", str(config), "--data", str(photos), "--latents", str(cache)]
    assert train_codec.main(["--lambda", "1e-3", *options, "--run", str(tmp_path / "run")]) == 0
    path = tmp_path / "live_paper.safetensors"
    assert export.main(["codec", "--run", str(tmp_path / "run"), "-o", str(path), "--quality", "1"]) == 0
    codec = load_codec(path)
    assert (codec.name, codec.channels, codec.card["lambda"]) == ("live_paper", 4, 1e-3)
    assert {"bpp", "latent_norm", "loss"} <= codec.card["validation"].keys() and "4 photos" in codec.card["data"]
    train, _ = latent_cache.read(cache, photos, load_autoencoder("compact"), 8)
    stage = train_codec.CodecStage(
        train_codec.parse(train_codec.CodecConfig, train_codec.load_yaml(config) | {"trained_at": 1e-3}),
        photos, load_autoencoder("compact"), None, cache,
    )  # fmt: skip
    torch.manual_seed(3)
    loss, figures, _ = stage.loss(0)
    latents, _ = train.batch(stage.config.schedule.seed, 0, 4, 8)
    torch.manual_seed(3)
    coded = stage.model.estimate(latents.contiguous(memory_format=torch.channels_last))
    bpp = (coded.y_bits + coded.z_bits) / (4 * 64 * 64)
    expected = 1e-3 * (coded.latents - latents).norm() + bpp
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and figures["bpp"] == pytest.approx(bpp.item())


def test_photos_that_cannot_be_read_are_left_out_and_named(photos, tmp_path, small_live, capfd):
    """By the cache, as by training without one; a cache is stale once such a photo has been mended."""
    folder = tmp_path / "some"
    shutil.copytree(photos, folder)
    broken = folder / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 nothing")
    autoencoder = load_autoencoder("compact")
    latent_cache.build(folder, autoencoder, tmp_path / "cache")
    assert capfd.readouterr().err.count("live: left out: ") == 1
    examples = latent_cache.read(tmp_path / "cache", folder, autoencoder, 8)
    assert broken not in [path for part in examples for path in part.files]
    assert len(Photos([*sorted(photos.iterdir()), broken], 64)) == len(list(photos.iterdir()))
    assert f"live: left out: {broken}" in capfd.readouterr().err
    photo(96, 96).save(broken)
    with pytest.raises(ModelError, match="stale"):
        latent_cache.read(tmp_path / "cache", folder, autoencoder, 8)


def test_pictures_cannot_be_weighed_from_a_cache(cache, photos, tmp_path, capsys):
    config = tmp_path / "wrong.yaml"
    config.write_text(PAPER.replace("l1: 0.0", "l1: 1.0"))
    arguments = ["--config", str(config), "--data", str(photos), "--latents", str(cache), "--run", str(tmp_path / "r")]
    assert run(lambda: train_codec.main(["--lambda", "1", *arguments])) == 2
    assert "weigh latents alone" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        train_codec.main(["--lambda", "1", *arguments])
    assert run(lambda: train_codec.main(arguments)) == 2
    assert "--lambda" in capsys.readouterr().err
