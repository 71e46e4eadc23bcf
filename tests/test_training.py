"""Training: exact resume after a kill, NaN stop, deterministic data, and the chain train -> export -> use."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import photo
from processes import ALONE, finish, start

from live.artefact import read_card
from live.checkpoints import load_codec
from live.config import load_yaml, parse
from live.errors import ConfigError
from training import export, train_autoencoder, train_codec
from training.data import Photos, Share
from training.engine import MOST_SKIPPED, Engine, TrainingDiverged
from training.schedule import Schedule
from training.train_autoencoder import AutoencoderConfig, CompressibleAutoencoder

ROOT = Path(__file__).resolve().parent.parent
TINY = """
schedule: {steps: 6, warmup: 2, validate_every: 3, lr: 1e-3}
phases: [{start: 0, batch: 2, crop: 32, alex: 0.0, mse: 1.0}]
model: {channels: 4, encoder_widths: [8, 8], encoder_blocks: [1, 1], decoder_widths: [8, 8], decoder_blocks: [1, 1]}
rate: {levels: 3, width: 8, z_channels: 4}
"""
TINY_CODEC = """
schedule: {steps: 4, warmup: 2, validate_every: 4, lr: 1e-3}
phases: [{start: 0, batch: 2, crop: 32, alex: 0.0, mse: 1.0}]
model: {channels: 4, width: 8, z_channels: 4, analysis_width: 8, synthesis_width: 8}
"""


class Quadratic:
    """A stage that needs no data: its loss depends on the step's own randomness, as real ones do."""

    validates_loss = True

    def __init__(self, poison: int | None = None):
        torch.manual_seed(0)
        self.model, self.poison = torch.nn.Linear(4, 1), poison

    def loss(self, step):
        loss = (self.model(torch.randn(8, 4)) ** 2).mean()
        if step == self.poison:
            loss = loss * float("nan")
        return loss, {"seen": float(step)}, [Path(f"photo{step}.jpg")]

    def place(self, share):
        pass

    def validate(self):
        return {"weight": self.model.weight.sum().item()}


CONFIG = parse(AutoencoderConfig, {"schedule": {"steps": 6}, "phases": []})


def losses(folder: Path) -> list[tuple[str, str]]:
    with open(folder / "log.csv", newline="") as log:
        return [(row["step"], row["loss"]) for row in csv.DictReader(log)]


def test_stopped_and_resumed_is_the_unbroken_run(tmp_path):
    schedule = Schedule(steps=12, warmup=2, validate_every=5)
    Engine(Quadratic(), schedule, tmp_path / "whole", CONFIG).run()
    first = Engine(Quadratic(), schedule, tmp_path / "broken", CONFIG)
    for _ in range(7):
        figures = first._one_step()
        if first.step == 5:
            first.save()
    assert figures["seen"] == 6  # steps 6 and 7 ran after the save and are lost, as after kill -9
    resumed = Engine(Quadratic(), schedule, tmp_path / "broken", CONFIG)
    assert resumed.step == 5
    resumed.run()
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")[5:]


def test_a_run_told_to_stop_says_so_and_goes_on(tmp_path):
    """Ctrl-C in a sweep must not export half a run: the exit code is not 0, and the state is saved."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stage, schedule = Quadratic(), Schedule(steps=6)
    usual = stage.loss

    def interrupted(step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return usual(step)

    stage.loss = interrupted
    try:
        assert Engine(stage, schedule, tmp_path, CONFIG).run() == 130
        assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 3
        assert Engine(Quadratic(), schedule, tmp_path, CONFIG).run() == 0
        assert len(losses(tmp_path)) == 6
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_kill_9_and_resume(photos, tmp_path):
    """A real process, killed without warning, goes on with the loss sequence of one that was not."""
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY.replace("steps: 6", "steps: 16").replace("validate_every: 3", "validate_every: 4"))
    command = [
        sys.executable,
        "-m",
        "training.train_autoencoder",
        "--config",
        str(config),
        "--data",
        str(photos),
        "--run",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, str(tmp_path / "killed")], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (tmp_path / "killed" / "state.pt").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert torch.load(tmp_path / "killed" / "state.pt", weights_only=True)["step"] < 16  # else nothing was interrupted
    for run in ("killed", "whole"):
        subprocess.run(
            [*command, str(tmp_path / run)], cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL
        )
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 16


SHARED = """
import os
import sys
from pathlib import Path
import torch
from training.data import ALONE, Examples
from training.engine import Engine
from training.schedule import Schedule
from training.train_autoencoder import AutoencoderConfig


class Fit:
    validates_loss = True

    def __init__(self):
        torch.manual_seed(0)
        self.model, self.share = torch.nn.Conv2d(3, 2, 3).to(memory_format=torch.channels_last), ALONE
        self.model.register_parameter("seldom", torch.nn.Parameter(torch.ones(())))
        self.data = Examples([Path(str(i)) for i in range(10)], [torch.randn(3, 9, 9) for _ in range(10)], True)
        self.falls = iter(range(9, 0, -1))

    def place(self, share):
        self.share = share

    def loss(self, step):
        if step == 2 and len(sys.argv) > 2:
            os._exit(3)
        batch, files = self.data.batch(1, step, 4, 8, self.share)
        seldom = 0.0 if step % 2 else (self.model.seldom - 3) ** 2
        return (self.model(batch) ** 2).mean() + seldom, {"share": len(batch)}, files

    def validate(self):  # the second process alone would see no plateau
        return {"loss": torch.rand(()).item() + 9 if self.share.rank == 0 else float(next(self.falls))}


schedule = Schedule(steps=6, warmup=1, validate_every=1, patience=1)
folder = sys.argv[1] if os.environ.get("RANK", "0") == "0" else sys.argv[1] + "-of-another-node"
Engine(Fit(), schedule, folder, AutoencoderConfig(schedule, ())).run()
"""


def test_two_processes_train_what_one_does(tmp_path):
    """torchrun: each process takes half of every batch, and the weights are those of a single process; after a stop too,
    and where the other process does not see the first one's disk; a parameter that takes no part in a step stays in it; and
    all wait on the first one's plateau."""
    script = tmp_path / "fit.py"
    script.write_text(SHARED)
    assert start(script, tmp_path / "two", "stop").returncode
    assert torch.load(tmp_path / "two" / "state.pt", weights_only=True)["step"] == 2
    finish(script, tmp_path / "two")
    finish(script, tmp_path / "one", by=ALONE)
    one, other = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("one", "two"))
    for name, value in one["model"].items():
        assert torch.allclose(value, other["model"][name], atol=1e-6), name
    with open(tmp_path / "two" / "log.csv", newline="") as log:
        assert [row["share"] for row in csv.DictReader(log)] == ["2"] * 6


def test_a_plateau_lowers_the_rate(tmp_path):
    schedule = Schedule(steps=8, warmup=0, validate_every=1, patience=1, lr=1e-2)
    stage = Quadratic()
    stage.validate = lambda: {"loss": 1.0}
    engine = Engine(stage, schedule, tmp_path, CONFIG)
    engine.run()
    with open(tmp_path / "log.csv", newline="") as log:
        rates = [float(row["lr"]) for row in csv.DictReader(log)]
    assert rates[:3] == [1e-2] * 3 and rates[3:5] == pytest.approx([1e-3] * 2)


def test_a_loss_that_falls_slowly_is_no_plateau(tmp_path):
    """Each time by less than counts, and yet in sum: as torch's ReduceLROnPlateau has it."""
    schedule = Schedule(steps=40, warmup=0, validate_every=1, patience=10, lr=1e-2)
    stage = Quadratic()
    losses = iter(1.0 - 5e-5 * step for step in range(40))
    stage.validate = lambda: {"loss": next(losses)}
    engine = Engine(stage, schedule, tmp_path, CONFIG)
    engine.run()
    assert engine.plateau["factor"] == 1.0


def test_patience_without_a_validation_loss_is_refused(tmp_path):
    stage = Quadratic()
    stage.validates_loss = False
    with pytest.raises(ConfigError, match="patience"):
        Engine(stage, Schedule(steps=2, warmup=0, validate_every=1, patience=1), tmp_path, CONFIG)


def test_nan_stops_and_names_the_batch(tmp_path):
    engine = Engine(Quadratic(poison=3), Schedule(steps=6, validate_every=2), tmp_path, CONFIG)
    with pytest.raises(TrainingDiverged, match=r"step 3 on photo3.jpg; last good: .*state.pt"):
        engine.run()
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2


@pytest.mark.parametrize(("wrong", "stops"), [(MOST_SKIPPED - 1, False), (MOST_SKIPPED, True)])
def test_gradients_that_are_no_numbers_are_passed_over_for_a_while(tmp_path, wrong, stops):
    stage = Quadratic()
    stage.model.weight.register_hook(lambda gradient: gradient * float("nan" if engine.step < wrong else 1))
    engine = Engine(stage, Schedule(steps=20), tmp_path, CONFIG)
    before = stage.model.weight.detach().clone()
    if stops:
        with pytest.raises(TrainingDiverged, match=r"no gradient was finite in 10 .* last good: none"):
            engine.run()
        assert torch.equal(stage.model.weight, before)
    else:
        assert engine.run() == 0 and not torch.equal(stage.model.weight, before)


def test_a_batch_that_cannot_be_shared_is_refused_at_once(tmp_path, monkeypatch):
    phases = [{"start": 0, "batch": 4, "crop": 32}, {"start": 5, "batch": 3, "crop": 32}]
    config = parse(AutoencoderConfig, {"schedule": {"steps": 6}, "phases": phases})
    monkeypatch.setattr("training.engine.Share", lambda rank, world, device: Share(rank, 2, device))
    with pytest.raises(ConfigError, match="a batch of 3 cannot be shared evenly by 2"):
        Engine(Quadratic(), Schedule(steps=6), tmp_path, config)


def test_another_configuration_is_refused(tmp_path):
    Engine(Quadratic(), Schedule(steps=2), tmp_path, CONFIG).run()
    other = parse(AutoencoderConfig, {"schedule": {"steps": 7}, "phases": []})
    with pytest.raises(ConfigError, match="another configuration"):
        Engine(Quadratic(), Schedule(steps=7), tmp_path, other)


def test_released_weights_are_short():
    """Six significant bits: within a 64th and float16's own rounding, either sign; again the same; the rest untouched."""
    weights = torch.randn(80, 80) * torch.logspace(-3, 1, 80)
    short = export.short(weights)
    assert ((short - weights).abs() <= weights.abs() / 62 + 1e-6).all() and not torch.equal(short, weights)
    assert torch.equal(export.short(-weights), -short) and torch.equal(export.short(short), short)
    assert (short.half().view(torch.int16) & 31 == 0).all() and torch.equal(short.half().float(), short)
    for other in (weights[:40], torch.arange(5000)):
        assert export.short(other) is other


def test_patch_transform_starts_as_the_klt(photos):
    """At step 0 the autoencoder is already the best linear one: far above a random start."""
    config = parse(AutoencoderConfig, {"schedule": {"steps": 1}, "phases": [], "model": {"channels": 16}})
    model = CompressibleAutoencoder(config)
    pictures = Photos(sorted(photos.glob("*.png")), 32).tensors
    model.init_from([p.float() / 127.5 - 1 for p in pictures], config.rate)
    original = pictures[0][None, :, :256, :256].float() / 255
    decoded, bpp = model(original, None)
    assert -10 * torch.log10(((decoded - original) ** 2).mean()) > 28
    assert bpp == 0


def test_train_export_and_use(photos, tmp_path, monkeypatch):
    """Both stages in miniature, exported, and a photo through the result: the documented commands, end to end."""
    import live

    (tmp_path / "ae.yaml").write_text(TINY)
    (tmp_path / "plus.yaml").write_text(TINY_CODEC)
    released = tmp_path / "checkpoints"
    released.mkdir()
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(released))
    data = ["--data", str(photos)]
    train_autoencoder.main(["--config", str(tmp_path / "ae.yaml"), *data, "--run", str(tmp_path / "ae")])
    export.main(["autoencoder", "--run", str(tmp_path / "ae"), "-o", str(released / "compact.safetensors"), *data])
    options = ["--config", str(tmp_path / "plus.yaml"), *data]
    train_codec.main(["--lambda", "5", *options, "--run", str(tmp_path / "q2")])
    fine = released / "live_plus_q2.safetensors"
    export.main(["codec", "--run", str(tmp_path / "q2"), "-o", str(fine), "--quality", "2"])
    train_codec.main(["--lambda", "1.25", *options, "--run", str(tmp_path / "q1"), "--init", str(fine)])
    export.main(
        ["codec", "--run", str(tmp_path / "q1"), "-o", str(released / "live_plus_q1.safetensors"), "--quality", "1"]
    )
    assert live.qualities() == [1, 2]
    coarse, finer = (live.compress(photo(70, 50), quality=q) for q in (1, 2))
    assert len(coarse) < len(finer)
    assert live.decompress(finer).size == (70, 50)
    assert load_codec(fine).card["lambda"] == 5
    (tmp_path / "wide.yaml").write_text(TINY_CODEC.replace("z_channels: 4", "z_channels: 6"))  # than the rate model's
    wide = ["--config", str(tmp_path / "wide.yaml"), "--lambda", "5", "--run", str(tmp_path / "wide")]
    assert train_codec.main([*wide, *data]) == 0


def test_a_finished_autoencoder_is_taken_further(photos, tmp_path):
    """--init: training goes on from the exported weights, gains and entropy model, and the run says from which."""
    (tmp_path / "ae.yaml").write_text(TINY)
    data = ["--config", str(tmp_path / "ae.yaml"), "--data", str(photos)]
    train_autoencoder.main([*data, "--run", str(tmp_path / "first")])
    released = tmp_path / "compact.safetensors"
    export.main(["autoencoder", "--run", str(tmp_path / "first"), "-o", str(released), "--data", str(photos)])
    config = parse(AutoencoderConfig, load_yaml(tmp_path / "ae.yaml"))
    model = train_autoencoder.AutoencoderStage(config, photos, released).model.eval()
    first = torch.load(tmp_path / "first" / "state.pt", weights_only=True)["ema"]
    for name, value in model.state_dict().items():
        if "log_gain" in name or name.startswith("net.") or ".h_s." in name or ".context" in name:
            assert torch.allclose(value, export.short(first[name]), atol=2e-3), name
    assert train_autoencoder.main([*data, "--run", str(tmp_path / "second"), "--init", str(released)]) == 0
    config = json.loads(torch.load(tmp_path / "second" / "state.pt", weights_only=True)["config"])
    assert config["init"] == read_card(released)["identity"]
