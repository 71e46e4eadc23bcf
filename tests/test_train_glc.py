"""GLC's three stages in miniature: exact resume, exported sets that code photos, ablations, refusals, the one command."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import photo
from safetensors.torch import load_file
from test_exact_golden import threads

import live
from live.codecs import GlcConfig
from live.command import run
from live.config import load_yaml, parse
from live.errors import ConfigError, ModelError
from live.latents.vq import VqAutoencoder
from live.registry import embedded_dir
from training import export, train_glc, train_vq
from training.code_prediction import PredictorConfig
from training.engine import Engine
from training.train_glc import GlcStage, GlcTrainConfig
from training.train_vq import VqStage, VqTrainConfig

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = {
    "glc_stage1.yaml": """
schedule: {steps: 6, warmup: 1, validate_every: 3, lr: 1e-3}
model:
  channels: 8
  codebook: 16
  inner: {channels: 4, encoder_widths: [8, 8], encoder_blocks: [1, 1], decoder_widths: [8, 8], decoder_blocks: [1, 1]}
  encoder_width: 8
  decoder_width: 8
  decoder_blocks: 1
phases: [{start: 0, batch: 2, crop: 64, alex: 0.0}]
adversary: {weight: 0.5, start: 3, lead: 1, width: 8}
""",
    "glc_stage2.yaml": """
schedule: {steps: 6, warmup: 1, validate_every: 3, lr: 1e-3}
model: {channels: 8, codebook: 8, blocks: 1, transform_blocks: 1, rates: 2, identity: true}
predictor: {layers: 1, heads: 2, width: 16, mlp: 16}
lambdas: [0.1, 0.4]
code: 0.1
phases: [{start: 0, batch: 2, crop: 64, l1: 0.0, alex: 0.0, latent_mse: 1.0}]
""",
    "glc_stage3.yaml": """
base: glc_stage2.yaml
adversary: {weight: 0.3, start: 3, lead: 1, width: 8}
phases: [{start: 0, batch: 2, crop: 64, alex: 0.0, mse: 1.0}]
""",
}
VQ, CODEC = "glc_compact_vq.safetensors", "glc_compact.safetensors"


@pytest.fixture(scope="module")
def configs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    for name, text in CONFIGS.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def trained(small_models, photos, configs, tmp_path_factory) -> Path:
    """All three stages, by the steps of scripts/train_glc.sh: runs/stage1 to 3 and what was exported, stage1 to 3."""
    out, data = tmp_path_factory.mktemp("trained"), ["--data", str(photos)]

    def call(main, *arguments: object) -> None:
        assert main([str(argument) for argument in arguments]) == 0

    def stage(number: int) -> list[object]:
        return ["--config", configs / f"glc_stage{number}.yaml", "--run", out / "runs" / f"stage{number}", *data]

    compact = small_models / "compact.safetensors"
    call(train_vq.main, *stage(1), "--compact", compact)
    call(export.main, "vq", "--run", out / "runs" / "stage1", "-o", out / "stage1" / VQ, *data)
    call(train_glc.main, *stage(2), "--vae", out / "stage1" / VQ)
    for number, earlier in ((2, "stage1"), (3, "stage2")):
        if number == 3:
            start = ["--init", out / "stage2" / CODEC, "--aids", out / "runs" / "stage2"]
            call(train_glc.main, *stage(3), "--vae", out / "stage2" / VQ, *start)
        exported = ["--run", out / "runs" / f"stage{number}", "--vae", out / earlier / VQ, "-o", out / f"stage{number}"]
        call(export.main, "glc", *exported)
    return out


def log(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("stage", ["stage2", "stage3"])
def test_an_exported_set_codes_photos(trained, monkeypatch, stage):
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(trained / stage))
    data = live.compress(photo(70, 50), 0.5, codec="glc")
    assert live.decompress(data).size == (70, 50)
    card = live.checkpoints.embedded_checkpoints()[0].card
    assert (card["lambdas"], card["steps"], card["factor"]) == ([0.1, 0.4], 6, 16)
    assert {"rate0_bpp", "rate1_alex"} <= set(card["validation"]) and "photos" in card["data"]


def test_stages_move_what_they_should(trained):
    """Stage II leaves the autoencoder as it is, stage III moves its decoder and nothing that the codes depend on."""
    first, second, third = (load_file(trained / f"stage{number}" / VQ) for number in (1, 2, 3))
    assert first.keys() == third.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
    moved = {name for name, value in first.items() if not torch.equal(value, third[name])}
    assert moved and all(name.startswith("decoder.") for name in moved)
    before, after = (load_file(trained / f"stage{number}" / CODEC) for number in (2, 3))
    assert not torch.equal(before["g_a.log_gain"], after["g_a.log_gain"]), "the codec moves as well"
    rates = {row["rate"] for row in log(trained / "runs" / "stage3")}
    assert rates == {"0", "1"}, "both rates had their batches"


def test_stage_three_can_move_the_encoder_too(trained, photos, configs, tmp_path, monkeypatch):
    """Its set is exported with the statistics of the new latents, for which photos are asked for, and codes photos."""
    (tmp_path / "joint.yaml").write_text(f"base: {configs / 'glc_stage3.yaml'}\nencoder: true\ncode: 0.0\n")
    set_out, joint = trained / "stage3", ["--run", str(tmp_path / "run")]
    start = ["--vae", str(set_out / VQ), "--init", str(set_out / CODEC), "--data", str(photos)]
    assert train_glc.main(["--config", str(tmp_path / "joint.yaml"), *start, *joint]) == 0
    exported = ["glc", *joint, "--vae", str(set_out / VQ), "-o", str(tmp_path / "out")]
    monkeypatch.delenv("LIVE_TRAIN", raising=False)
    assert run(lambda: export.main(exported), "") == 2 and not (tmp_path / "out").exists()
    assert export.main([*exported, "--data", str(photos)]) == 0
    before, after = load_file(set_out / VQ), load_file(tmp_path / "out" / VQ)
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"encoder", "decoder", "latent_mean", "latent_std"} and before.keys() == after.keys()
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(tmp_path / "out"))
    assert live.decompress(live.compress(photo(70, 50), 0.5, codec="glc")).size == (70, 50)
    with pytest.raises(ConfigError, match="code: the encoder of this VQ autoencoder has moved"):
        config = parse(GlcTrainConfig, load_yaml(configs / "glc_stage2.yaml"))
        GlcStage(config, photos, VqAutoencoder(tmp_path / "out" / VQ, "vq"))
    with pytest.raises(ConfigError, match="encoder: it moves only with"):
        config = parse(GlcTrainConfig, load_yaml(configs / "glc_stage3.yaml"))
        GlcStage(replace(config, encoder=True), photos, VqAutoencoder(set_out / VQ, "vq"), set_out / CODEC)


def test_stage_three_goes_on_with_the_predictor_of_stage_two(trained, photos, configs):
    config = parse(GlcTrainConfig, load_yaml(configs / "glc_stage3.yaml"))
    aids, init = trained / "runs" / "stage2", trained / "stage2" / CODEC
    autoencoder = VqAutoencoder(trained / "stage2" / VQ, "vq")
    state = torch.load(aids / "state.pt", weights_only=True)["ema"]
    model = GlcStage(config, photos, autoencoder, init, [aids]).model
    for name, value in model.predictor.state_dict().items():
        assert torch.equal(value, state[f"predictor.{name}"])
    for name, value in load_file(init).items():
        if not name.startswith("tables."):
            assert torch.equal(model.codec.state_dict()[name], value.float()), name
    wider = replace(config, predictor=replace(config.predictor, mlp=24))
    with pytest.raises(ConfigError, match="in another size"):
        GlcStage(wider, photos, autoencoder, init, [aids])
    with pytest.raises(ConfigError, match="of another codec or size"):
        GlcStage(replace(config, model=replace(config.model, codebook=9)), photos, autoencoder, init)
    with pytest.raises(ModelError, match="no training state"):
        GlcStage(config, photos, autoencoder, init, [trained / "nothing"])


def stage_of(number: int, trained: Path, photos: Path, configs: Path, compact: Path):
    """A stage as its command makes it, and its configuration."""
    values = load_yaml(configs / f"glc_stage{number}.yaml")
    if number == 1:
        config = parse(VqTrainConfig, values)
        return VqStage(config, photos, compact), config
    config = parse(GlcTrainConfig, values)
    autoencoder = VqAutoencoder(trained / f"stage{number - 1}" / VQ, "vq")
    start = (trained / "stage2" / CODEC, [trained / "runs" / "stage2"]) if number == 3 else ()
    return GlcStage(config, photos, autoencoder, *start), config


@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_and_resumed_is_the_unbroken_run(trained, photos, configs, small_models, tmp_path, number):
    """The same losses and weights, and with them the use of the codebooks and all that moved of them."""

    def engine(name: str) -> Engine:
        stage, config = stage_of(number, trained, photos, configs, small_models / "compact.safetensors")
        return Engine(stage, config.schedule, tmp_path / name, config)

    engine("whole").run()
    broken = engine("broken")
    for _ in range(5):
        broken._one_step()
        if broken.step == 4:
            broken.save()
    resumed = engine("broken")  # the fifth step ran after the save and is lost, as after kill -9
    assert resumed.step == 4
    resumed.run()
    assert [row["loss"] for row in log(tmp_path / "broken")] == [row["loss"] for row in log(tmp_path / "whole")][4:]
    whole, broken = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "broken"))
    usage = [name for name in whole["model"] if name.endswith("usage")]
    assert len(usage) == 1 and whole["model"][usage[0]].any()
    for part in ("model", "ema"):
        assert all(torch.equal(value, broken[part][name]) for name, value in whole[part].items())


@pytest.mark.parametrize(
    "change", [{"code": 0.0}, {"model": {"codebook": 0}}], ids=["no code prediction", "factorised"]
)
def test_ablations_train(trained, photos, configs, tmp_path, monkeypatch, change):
    config = tmp_path / "ablation.yaml"
    text = [f"base: {configs / 'glc_stage2.yaml'}"]
    text += [f"{name}: {value if name == 'code' else '{codebook: 0}'}" for name, value in change.items()]
    config.write_text("\n".join(text))
    vq, folder = trained / "stage1" / VQ, tmp_path / "run"
    options = ["--config", config, "--vae", vq, "--data", photos, "--run", folder]
    assert train_glc.main([str(option) for option in options]) == 0
    assert export.main(["glc", "--run", str(folder), "--vae", str(vq), "-o", str(tmp_path / "out")]) == 0
    state, columns = torch.load(folder / "state.pt", weights_only=True)["model"], log(folder)[0].keys()
    assert ("d_code" in columns, any(name.startswith("predictor.") for name in state)) == ("model" in change,) * 2
    assert ("codec.prior.categorical.codebook" in state) == ("code" in change)
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(tmp_path / "out"))
    assert live.decompress(live.compress(photo(40, 30), codec="glc")).size == (40, 30)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lambdas": (0.1,)}, "lambdas must be 2, one a rate, not 1"),
        ({"model": {"channels": 12}}, "model.channels must be the autoencoder's 8, not 12"),
        ({"crop": 96}, "a crop must be a multiple of 64 px, not 96"),
        ({"crop": 320}, "in crops of 256 px at most"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(trained, photos, configs, change, words):
    config = parse(GlcTrainConfig, load_yaml(configs / "glc_stage2.yaml"))
    if "crop" in change:
        config = replace(config, phases=(replace(config.phases[0], crop=change["crop"]),))
    elif "model" in change:
        config = replace(config, model=replace(config.model, **change["model"]))
    else:
        config = replace(config, **change)
    with pytest.raises(ConfigError, match=words):
        GlcStage(config, photos, VqAutoencoder(trained / "stage1" / VQ, "vq"))


def test_refusals_of_the_commands(trained, photos, configs, small_models, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LIVE_TRAIN", raising=False)
    compact, folder = small_models / "compact.safetensors", tmp_path / "run"
    vq, one, two = trained / "stage1" / VQ, configs / "glc_stage1.yaml", configs / "glc_stage2.yaml"
    runs = [
        (train_vq.main, ["--config", one, "--run", folder], "--data or LIVE_TRAIN"),
        (train_vq.main, ["--config", one, "--run", folder, "--data", photos, "--init", compact], "another kind or size"),
        (train_glc.main, ["--config", two, "--run", folder, "--data", photos, "--vae", compact], "is no VQ autoencoder"),
        (export.main, ["glc", "--run", folder, "--vae", vq, "-o", tmp_path / "out"], "no training state"),
        (export.main, ["glc", "--run", trained / "runs" / "stage3", "--vae", trained / "stage3" / VQ, "-o", tmp_path / "out"],
         "is not the autoencoder that"),
    ]  # fmt: skip
    for main, arguments, words in runs:
        assert run(lambda main=main, arguments=arguments: main([str(argument) for argument in arguments])) == 2
        said = capsys.readouterr().err
        assert words in said and said.splitlines()[-1].startswith("live: ")
    assert not (tmp_path / "out").exists() and not folder.exists()


def test_the_published_shape_begins_with_nothing(photos, configs, small_models, tmp_path):
    """By the same command as ours, which grows from compact."""
    published = tmp_path / "published.yaml"
    published.write_text(
        f"base: {configs / 'glc_stage1.yaml'}\nmodel: {{published: true, width: 32}}\nschedule: {{steps: 1}}"
    )
    options = [
        "--config",
        published,
        "--run",
        tmp_path,
        "--data",
        photos,
        "--compact",
        small_models / "compact.safetensors",
    ]
    assert train_vq.main([str(option) for option in options]) == 0
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 1


def test_a_vq_autoencoder_is_taken_further(trained, photos, configs):
    config = parse(VqTrainConfig, load_yaml(configs / "glc_stage1.yaml"))
    model, exported = VqStage(config, photos, init=trained / "stage1" / VQ).model, load_file(trained / "stage1" / VQ)
    assert all(torch.equal(value, exported[name].float()) for name, value in model.net.state_dict().items())


@pytest.mark.parametrize("folder", [".", "glc_paper"])
def test_the_committed_configurations_fit_one_another(folder):
    first, second, third = (load_yaml(ROOT / "configs" / folder / f"glc_stage{number}.yaml") for number in (1, 2, 3))
    vq = parse(VqTrainConfig, first)
    two, three = (parse(GlcTrainConfig, values) for values in (second, third))
    compact = live.latents.load_autoencoder(str(embedded_dir() / "compact.safetensors"))
    assert vq.model.channels == two.model.channels
    if folder == "glc_paper":  # the published sizes, which are the defaults
        assert vq.model.published and (two.model, two.predictor) == (GlcConfig(), PredictorConfig())
        assert {phase.crop for config in (vq, two, three) for phase in config.phases} == {256}
    else:
        assert vq.model.inner.channels == compact.channels
    assert two.model == three.model and two.predictor == three.predictor
    assert len(two.lambdas) == len(three.lambdas) == two.model.rates
    assert not any(phase.sees_pictures for phase in two.phases) and all(phase.sees_pictures for phase in three.phases)


@pytest.mark.slow
def test_one_command_trains_all_stages_and_goes_on(small_models, photos, tmp_path, monkeypatch):
    """Killed without warning in stage II, run again: what was finished is left alone, and the losses are the unbroken run's."""
    longer = tmp_path / "configs"
    longer.mkdir()
    for name, text in CONFIGS.items():
        (longer / name).write_text(
            text.replace("steps: 6", "steps: 60").replace("every: 3", "every: 20") if "2" in name else text
        )
    command = ["bash", str(ROOT / "scripts" / "train_glc.sh"), "configs"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LIVE_TRAIN": str(photos), "PYTHON": sys.executable}
    environment |= {"LIVE_CHECKPOINTS": str(small_models), "LIVE_GLC": "killed"}
    state = tmp_path / "killed" / "runs" / "stage2" / "state.pt"
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not state.exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert torch.load(state, weights_only=True)["step"] < 60 and not (tmp_path / "killed" / "stage2").exists()
    finished = (tmp_path / "killed" / "stage1" / VQ).stat().st_mtime_ns
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("*") if path.is_file()}
    assert made[tmp_path / "killed" / "stage1" / VQ] == finished
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert {path: path.stat().st_mtime_ns for path in made} == made, "nothing is left to do"

    vq, run_folder = tmp_path / "killed" / "stage1" / VQ, tmp_path / "whole"
    options = ["--config", longer / "glc_stage2.yaml", "--vae", vq, "--data", photos, "--run", run_folder]
    with threads(1):
        assert train_glc.main([str(option) for option in options]) == 0
    assert [row["loss"] for row in log(tmp_path / "killed" / "runs" / "stage2")] == [
        row["loss"] for row in log(run_folder)
    ]
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(tmp_path / "killed" / "stage3"))
    assert live.decompress(live.compress(photo(70, 50), 1, codec="glc")).size == (70, 50)


@pytest.mark.slow
def test_one_command_trains_and_measures_the_ablations(trained, photos, configs, tmp_path):
    few, pictures = (tmp_path / name for name in ("configs", "pictures"))
    few.mkdir()
    for name, change in (("glc_stage2", ""), ("glc_factorised", "model: {codebook: 0}"), ("glc_no_code", "code: 0")):
        (few / f"{name}.yaml").write_text(f"base: {configs / 'glc_stage2.yaml'}\n{change}")
    pictures.mkdir()
    photo(96, 80).save(pictures / "a.png")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LIVE_TRAIN": str(photos), "PYTHON": sys.executable}
    environment |= {"LIVE_VQ": str(trained / "stage1" / VQ), "LIVE_ABLATION": "out", "LIVE_KODAK": "pictures"}
    command = ["bash", str(ROOT / "scripts" / "ablate_glc.sh"), "configs"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "out" / "kodak" / "points.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["codec"] for row in rows) == {"glc_stage2": 2, "glc_factorised": 2, "glc_no_code": 2}
    assert all(float(row["bpp"]) > 0 and float(row["lpips_alex"]) > 0 and float(row["dists"]) > 0 for row in rows)
