"""The sweep from the shell: what it trains, in which order and from where, and what it refuses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import photo
from processes import TOGETHER

from live.artefact import read_card
from live.command import run
from live.errors import ConfigError
from testing.results import load
from training import train_codec
from training.data import is_validation
from training.train_codec import plan, qualities

ROOT = Path(__file__).resolve().parent.parent
FIRST = """
lambdas: [2.5, 0.4]
schedule: {steps: 2, warmup: 1, validate_every: 2, lr: 1e-3}
phases: [{start: 0, batch: 2, crop: 32, alex: 0.0, mse: 1.0}]
model: {width: 8, z_channels: 4, analysis_width: 8, synthesis_width: 8}
"""
THEN = """
base: first.yaml
after: first.yaml
phases: [{start: 0, batch: 2, crop: 32, alex: 0.0, mse: 2.0}]
"""


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    (tmp_path / "first.yaml").write_text(FIRST)
    (tmp_path / "then.yaml").write_text(THEN)
    return tmp_path


def sweep(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name not in ("LIVE_TRAIN", "LIVE_KODAK")}
    environment = kept | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run([ROOT / "sweep_lambda.sh", *arguments], env=environment, capture_output=True, text=True)


def test_a_sweep_comes_after_the_one_it_names(configs):
    assert plan(configs / "first.yaml", []) == ((2.5, 0.4), [configs / "first.yaml"])
    assert plan(configs / "then.yaml", [1.0]) == ((1.0,), [configs / "first.yaml", configs / "then.yaml"])
    assert plan(ROOT / "configs" / "live_plus_more.yaml", [])[1][0] == ROOT / "configs" / "live_plus.yaml"


def test_lambdas_have_one_spelling(configs, capsys):
    """So that 3e-3 and 0.003 are one file; from fine to coarse, in whatever order they are given."""
    assert train_codec.main(["--config", str(configs / "first.yaml"), "--list", "3e-3", "1.0"]) == 0
    assert capsys.readouterr().out.splitlines() == ["1 0.003", "3 1", str(configs / "first.yaml")]


def test_a_lambda_has_its_quality_whichever_are_trained_with_it(configs):
    whole, _ = plan(configs / "first.yaml", [])
    assert [qualities(configs / "first.yaml", given) for given in (whole, whole[:1], whole[1:])] == [[2, 1], [2], [1]]


@pytest.mark.parametrize(
    ("after", "word"),
    [("then.yaml", "cannot come after"), ("[first.yaml]", "must name"), ("nowhere.yaml", "cannot read")],
)
def test_what_cannot_come_before_is_refused(configs, after, word):
    (configs / "then.yaml").write_text(THEN.replace("after: first.yaml", f"after: {after}"))
    with pytest.raises(ConfigError, match=word):
        plan(configs / "then.yaml", [])


def test_what_cannot_be_trained_is_refused_at_once(configs, capsys):
    (configs / "none.yaml").write_text("base: first.yaml\nlambdas: []\n")
    for config, given, word in (
        ("none", [], "lists no lambdas"),
        ("first", ["-1"], "positive number"),
        ("first", ["nan"], "positive number"),
        ("first", ["much"], "invalid float value: 'much'"),
        ("nowhere", [], "cannot read the configuration"),
    ):
        arguments = ["--config", str(configs / f"{config}.yaml"), "--list", *given]
        assert run(lambda arguments=arguments: train_codec.main(arguments)) == 2
        error = capsys.readouterr().err
        assert word in error and error.count("\n") == 1


def test_the_script_says_what_is_missing():
    for arguments, word in (([], "set LIVE_TRAIN"), (["--fast"], "unknown option --fast")):
        done = sweep(*arguments)
        assert done.returncode == 2 and word in done.stderr and done.stderr.count("\n") == 1
    told = sweep("--help")
    assert told.returncode == 0 and "LIVE_TRAIN=PHOTOS ./sweep_lambda.sh" in told.stdout and "#" not in told.stdout
    assert told.stdout.splitlines()[-2].startswith("LIVE_SWEEPS")


@pytest.mark.parametrize("script", ["train_glc", "train_video", "ablate_glc", "results"])
def test_every_script_tells_what_it_does(script):
    done = subprocess.run([f"scripts/{script}.sh", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and "set -euo" not in done.stdout and len(done.stdout) > 200


def test_what_cannot_be_measured_is_refused_before_training(configs, tmp_path):
    photo(96, 64).save(tmp_path / "a.png")
    variables = {"LIVE_TRAIN": "photos", "LIVE_EVAL": str(tmp_path), "LIVE_SWEEPS": str(tmp_path / "sweeps")}
    done = sweep(str(configs / "first.yaml"), LIVE_CODECS="jpg", **variables)
    assert done.returncode == 2 and "jpg" in done.stderr and done.stderr.count("\n") == 1
    done = sweep(str(configs / "first.yaml"), LIVE_CODECS=f"jpeg,{tmp_path}/other/first", **variables)
    assert done.returncode == 2 and "has the name of this sweep" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.slow
def test_two_sweeps_in_one_command(configs, small_models, tmp_path):
    """Each lambda of the second starts from its own checkpoint of the first; run again, nothing is made twice.

    By two processes, as on two GPUs.
    """
    photos, pictures = tmp_path / "photos", tmp_path / "pictures"
    photos.mkdir()
    pictures.mkdir()
    names = [f"{number}.png" for number in range(60)]
    held_out = [name for name in names if is_validation(Path(name))][:1]
    for seed, name in enumerate(held_out + [name for name in names if not is_validation(Path(name))][:3]):
        photo(272, 272, seed).save(photos / name)
    photo(96, 64).save(pictures / "a.png")
    variables = {
        "LIVE_TRAIN": str(photos), "LIVE_EVAL": str(pictures), "LIVE_SWEEPS": str(tmp_path / "sweeps"),
        "LIVE_LAUNCH": f"torchrun {' '.join(TOGETHER)} -m --",
        "LIVE_CHECKPOINTS": str(small_models), "LIVE_CODECS": "jpeg", "LIVE_METRICS": "psnr",
    }  # fmt: skip
    done = sweep(str(configs / "then.yaml"), **variables)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "sweeps" / "sweep_then"
    for lambda_, quality in (("2.5", 2), ("0.4", 1)):
        before = read_card(tmp_path / "sweeps" / "sweep_first" / "first" / f"lambda-{lambda_}.safetensors")
        card = read_card(out / "then" / f"lambda-{lambda_}.safetensors")
        assert card["training"]["init"] == before["identity"] and card["quality"] == quality
    assert set(load(out / "points.csv")["codec"]) == {"then", "jpeg"}
    assert (out / "report.html").exists() and (out / "rd.png").exists()
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    table = (out / "points.csv").read_bytes()
    assert sweep(str(configs / "then.yaml"), **variables).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == made
    assert (out / "points.csv").read_bytes() == table


@pytest.mark.slow
def test_the_quick_sweep_is_the_whole_chain(tmp_path):
    """On the embedded autoencoder, without photos of the user's: checkpoints, files, table, plot, report."""
    done = sweep("--quick", LIVE_SWEEPS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    out = tmp_path / "sweep_quick"
    points, checkpoints = load(out / "points.csv"), sorted((out / "quick").glob("lambda-*.safetensors"))
    assert len(checkpoints) > 1 and {"quick", "jpeg"} == set(points["codec"])
    assert points.loc[points["codec"] == "quick", "setting"].nunique() == len(checkpoints)
    assert all((out / name).stat().st_size > 10_000 for name in ("rd.png", "report.html")) and any(
        (out / "files").iterdir()
    )
