"""Training of the codecs of clips: exact resume, a rate that falls, exported weights, refusals, the one command."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import export_small_autoencoder, export_small_glc, export_small_vq
from films import FRAMES, HELD_OUT, frames_of, training_clips
from test_exact_golden import threads

import live
from live.artefact import read_card
from live.checkpoints import load_codec
from live.command import run
from live.config import load_yaml, parse
from live.errors import ConfigError, ModelError
from training import export, train_video
from training.engine import Engine
from training.schedule import Schedule
from training.train_video import VideoStage, VideoTrainConfig

ROOT = Path(__file__).resolve().parent.parent
LIVE = """
codec: live_video
schedule: {steps: 6, warmup: 1, validate_every: 6, lr: 5e-3}
model: {width: 16, blocks: 1, z_channels: 4, qualities: 2}
lambdas: [0.2, 0.5]
phases:
  - {start: 0, batch: 2, crop: 64, frames: 2, l1: 0, alex: 0}
  - {start: 3, batch: 2, crop: 64, frames: 3, l1: 0, alex: 0}
"""
GLC = """
codec: glc_video
schedule: {steps: 6, warmup: 1, validate_every: 6, lr: 1e-3}
model: {channels: 8, codebook: 16, tokens: 2, heads: 2, context_blocks: 1, blocks: 1, transform_blocks: 1, identity: true}
lambdas: [0.05, 0.1, 0.2, 0.4]
frame_weights: [1.2, 0.5]
phases:
  - {start: 0, batch: 2, crop: 64, frames: 2, l1: 1.0, alex: 0, latent_mse: 0.5}
  - {start: 3, batch: 1, crop: 128, frames: 3, l1: 1.0, alex: 0, latent_mse: 0.5}
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "train"
    folder.mkdir()
    return training_clips(folder)


@pytest.fixture(scope="module")
def models(small_models, tmp_path_factory) -> Path:
    """Small codecs of pictures of either kind, and their autoencoders."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(small_models, folder, dirs_exist_ok=True)
    export_small_vq(folder)
    export_small_glc(folder, 16)
    return folder


@dataclass(frozen=True)
class Trial:
    """What a run is of: its configuration's file and the options of its command, but for the run folder."""

    name: str
    path: Path
    clips: Path
    photos: Path
    images: list[Path]

    @property
    def config(self) -> VideoTrainConfig:
        return parse(VideoTrainConfig, load_yaml(self.path))

    def stage(self, config: VideoTrainConfig | None = None, **options) -> VideoStage:
        return VideoStage(config or self.config, self.clips, self.photos, self.images, **options)

    def command(self, run_folder: Path) -> list[str]:
        options = ["--config", self.path, "--clips", self.clips, "--data", self.photos, "--run", run_folder]
        return [str(option) for option in (*options, "--images", *self.images)]


@pytest.fixture
def live_trial(models, clips, photos, tmp_path, monkeypatch) -> Trial:
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(models))
    path = tmp_path / "live_video.yaml"
    path.write_text(LIVE)
    return Trial(
        "live_video", path, clips, photos, [models / f"live_plus_q{quality}.safetensors" for quality in (1, 2)]
    )


@pytest.fixture
def glc_trial(models, clips, photos, tmp_path, monkeypatch) -> Trial:
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(models))
    path = tmp_path / "glc_video.yaml"
    path.write_text(GLC)
    return Trial("glc_video", path, clips, photos, [models / "glc_compact.safetensors"])


@pytest.fixture(params=["live_trial", "glc_trial"])
def trial(request) -> Trial:
    return request.getfixturevalue(request.param)


def log(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_stopped_and_resumed_is_the_unbroken_run(trial, tmp_path):
    config, whole, broken = trial.config, tmp_path / "whole", tmp_path / "broken"
    with threads(1):
        Engine(trial.stage(), config.schedule, whole, config).run()
        first = Engine(trial.stage(), config.schedule, broken, config)
        for _ in range(5):
            first._one_step()
            if first.step == 4:
                first.save()  # step 5 ran after it and is lost, as after kill -9
        resumed = Engine(trial.stage(), config.schedule, broken, config)
        assert resumed.step == 4
        resumed.run()
    assert log(broken) == log(whole)[4:]
    assert len({row["rate"] for row in log(whole)}) > 1, "several rates had their batches"


def test_a_short_training_lowers_the_rate(live_trial, tmp_path):
    """And leaves the codecs of pictures as they were: every first frame stays what it is."""
    schedule = replace(live_trial.config.schedule, steps=60, validate_every=60, ema=0.9)
    stage = live_trial.stage()
    before = stage.validate()
    assert Engine(stage, schedule, tmp_path / "run", replace(live_trial.config, schedule=schedule)).run() == 0
    after = json.loads((tmp_path / "run" / "validation.jsonl").read_text())
    for rate in ("rate0", "rate1"):
        assert after[f"{rate}_bpp"] < 0.9 * before[f"{rate}_bpp"]
        for figure in ("intra_bpp", "still_bpp", "still_psnr", "still_alex"):
            assert after[f"{rate}_{figure}"] == pytest.approx(before[f"{rate}_{figure}"], abs=1e-5)


def test_a_short_training_lowers_the_loss(glc_trial, monkeypatch):
    """At every rate, on one and the same batch; the codec of pictures and the autoencoder do not move."""
    stage = glc_trial.stage()
    frozen = [*stage.model.images[0].parameters(), *stage.autoencoder.net.parameters()]
    before = [value.clone() for value in frozen]
    optimizer = torch.optim.Adam(stage.model.parameters(), 2e-3)
    losses: dict[int, list[float]] = {}
    for number in range(60):
        torch.manual_seed(number)
        drawn = torch.Generator().manual_seed(number)  # the rate, which a step has once for all
        monkeypatch.setattr(Schedule, "generator_at", lambda self, step, drawn=drawn: drawn)
        loss, figures, _ = stage.loss(0)
        losses.setdefault(figures["rate"], []).append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert set(losses) == {0, 1, 2, 3} and all(values[-1] < 0.9 * values[0] for values in losses.values())
    assert all(torch.equal(value, old) for value, old in zip(frozen, before, strict=True))


def test_frames_weigh_what_the_configuration_says(glc_trial):
    """With the last of three frames weighing nothing, D is that of the first two."""
    figures = []
    for weights in ((1.0, 1.0), (2.0, 0.0), (0.0, 2.0)):
        stage = glc_trial.stage(replace(glc_trial.config, frame_weights=weights))
        torch.manual_seed(0)
        figures.append(stage.loss(3)[1])
    both, first, second = (row["d_l1"] for row in figures)
    assert both == pytest.approx((first + second) / 2, rel=1e-4) and first != second
    assert len({row["bpp"] for row in figures}) == 1, "the rate counts as before"


def test_an_exported_codec_codes_clips_and_can_be_taken_further(trial, tmp_path):
    run_folder, output = tmp_path / "run", tmp_path / f"{trial.name}.safetensors"
    assert train_video.main(trial.command(run_folder)) == 0
    named = ["video", "--run", str(run_folder), "-o", str(output), "--images", *map(str, trial.images)]
    assert export.main(named) == 0
    card, picture = read_card(output), read_card(trial.images[0])
    assert card["images"] == card["training"]["images"] == [read_card(image)["identity"] for image in trial.images]
    assert (card["codec"], card["steps"]) == (trial.name, 6)
    assert all(card[key] == picture[key] for key in ("autoencoder", "autoencoder_name", "factor"))
    assert {"rate0_bpp", "rate1_still_alex"} <= set(card["validation"]) and "clips" in card["data"]
    codec = load_codec(output)
    assert [image.identity for image in codec.images] == card["images"]
    live.compress_clip(trial.clips / HELD_OUT, tmp_path / "clip.live", checkpoint=output)
    assert len(frames_of(tmp_path / "clip.live", checkpoint=output)) == FRAMES

    for name, value in trial.stage(init=output).model.state_dict().items():
        assert torch.equal(value, codec.state_dict()[name])
    with pytest.raises(ConfigError, match="of another codec or size"):
        trial.stage(replace(trial.config, model=trial.config.model | {"blocks": 2}), init=output)
    with pytest.raises(ModelError, match="not made over these codecs of pictures"):
        export.main([*named, str(trial.images[0])])


REFUSED = [
    ({"misspelt": 1}, "unknown setting misspelt"),
    ({"lambdas": [0.1]}, "lambdas must be 2, one a rate, not 1"),
    ({"synthetic": 1.5}, "synthetic must be 0 to 1"),
    ({"frame_weights": []}, "frame_weights must not be empty"),
    ({"codec": "live_plus", "model": {}}, "codec must be one of clips, not live_plus"),
    ({"phases": [{"start": 0, "batch": 1, "crop": 48, "frames": 2}]}, "a crop must be a multiple of 32 px"),
    ({"phases": [{"start": 0, "batch": 1, "crop": 64, "frames": 1}]}, "frames must be 2 or more"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_configurations_that_do_not_fit_are_refused(change, words, live_trial, tmp_path, capsys):
    live_trial.path.write_text(yaml.safe_dump(load_yaml(live_trial.path) | change))
    assert run(lambda: train_video.main(live_trial.command(tmp_path / "run"))) == 2
    said = capsys.readouterr().err
    assert words in said and said.strip().count("\n") == 0
    assert not (tmp_path / "run").exists()


def test_the_autoencoder_must_be_that_of_the_codecs_of_pictures(live_trial, tmp_path):
    other = tmp_path / "other.safetensors"
    export_small_autoencoder(other, seed=1)
    with pytest.raises(ModelError, match="give the one it was trained on"):
        live_trial.stage(vae=str(other))


def test_the_shipped_configurations_fit_the_released_checkpoints():
    for name, pictures in (("live_video", "live_plus_q1"), ("glc_video", "glc_compact")):
        config = parse(VideoTrainConfig, load_yaml(ROOT / "configs" / f"{name}.yaml"))
        released = load_codec(ROOT / "checkpoints" / f"{pictures}.safetensors")
        codec = train_video.untrained_codec(config.codec, config.model, [released])
        assert codec.channels == released.channels
        rates = codec.config.rates if name == "glc_video" else codec.config.qualities
        assert len(config.lambdas) == rates


@pytest.mark.slow
def test_one_command_trains_both_and_goes_on(live_trial, glc_trial, models, tmp_path):
    """Killed without warning within the first and run again: no step is missing or made twice, and both codecs are there."""
    live_trial.path.write_text(LIVE.replace("steps: 6", "steps: 40").replace("every: 6", "every: 20"))
    command = ["bash", str(ROOT / "scripts" / "train_video.sh"), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LIVE_TRAIN": str(live_trial.photos)}
    environment |= {
        "LIVE_CHECKPOINTS": str(models),
        "LIVE_VIDEO": str(live_trial.clips.parent),
        "LIVE_OUT": str(tmp_path / "killed"),
        "PYTHON": sys.executable,
    }
    state = tmp_path / "killed" / "runs" / "live_video" / "state.pt"
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not state.exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert torch.load(state, weights_only=True)["step"] < 40
    subprocess.run(command, env=environment, check=True, capture_output=True)
    made = [tmp_path / "killed" / f"{name}.safetensors" for name in ("live_video", "glc_video")]
    assert [load_codec(path).name for path in made] == ["live_video", "glc_video"]
    assert len(log(tmp_path / "killed" / "runs" / "live_video")) == 40
