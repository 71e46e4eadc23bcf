"""What a run is made of: phases and the examples they take, logs whose columns change, states that can be read, shared norms."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import count
from pathlib import Path

import pytest
import torch
from conftest import photo
from processes import ALONE, finish

from live.artefact import read_artefact, write_artefact
from live.command import run
from live.errors import ConfigError, InputError, ModelError, OutputError
from live.latents.base import identity_of
from live.latents.compact import CompactAutoencoder
from training import export, train_codec
from training.data import is_validation
from training.losses import Phase, check_phases, phase_at
from training.record import Record, read_state, write_state

ROOT = Path(__file__).resolve().parent.parent
CODEC = """
schedule: {steps: 2, warmup: 1, validate_every: 2}
phases: [{start: 0, batch: 2, crop: 32, l1: 0, alex: 0, latent_mse: 1.0}]
model: {channels: 4, width: 8, z_channels: 4, analysis_width: 8, synthesis_width: 8}
"""


def test_a_later_phase_goes_on_where_the_earlier_one_stopped():
    phases = (Phase(0, 4, 32), Phase(10, 1, 32), Phase(15, 3, 32))
    places = [phase_at(phases, step)[1] for step in range(18)]
    assert places == [*range(0, 40, 4), *range(40, 45), 45, 48, 51]
    assert [phase_at(phases, step)[0].batch for step in (9, 10, 15)] == [4, 1, 3]


@pytest.mark.parametrize(
    ("phases", "why"),
    [
        ((), "start 0"),
        ((Phase(5, 1, 32),), "start 0"),
        ((Phase(0, 1, 32), Phase(0, 1, 32)), "must follow"),
        ((Phase(0, 0, 32),), "batch must be 1"),
        ((Phase(0, 1, 100),), "multiple of 32"),
        ((Phase(0, 1, 0),), "multiple of 32"),
    ],
)
def test_phases_that_cannot_be_trained_are_refused(phases, why):
    with pytest.raises(ConfigError, match=why):
        check_phases(phases, 32)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as log:
        return list(csv.DictReader(log))


def test_a_later_phase_may_log_other_terms(tmp_path):
    record = Record(tmp_path)
    record.step(1, {"loss": 0.5, "d_l1": 0.1})
    record.step(2, {"loss": 0.4, "d_mse": 0.2, "d_alex": 0.3})
    Record(tmp_path).step(3, {"loss": 0.3, "d_alex": 0.6})
    assert rows_of(tmp_path) == [
        {"step": "1", "loss": "0.5", "d_l1": "0.1", "d_mse": "", "d_alex": ""},
        {"step": "2", "loss": "0.4", "d_l1": "", "d_mse": "0.2", "d_alex": "0.3"},
        {"step": "3", "loss": "0.3", "d_l1": "", "d_mse": "", "d_alex": "0.6"},
    ]


def test_logs_are_those_of_the_run(tmp_path):
    record = Record(tmp_path)
    for step in (1, 2, 3):
        record.step(step, {"loss": 0.5})
        record.validation(step, {"psnr": 30.0})
    for name in ("log.csv", "validation.jsonl"):
        with open(tmp_path / name, "a") as log:
            log.write('{"step": 4, "ps' if name.endswith("l") else "4,0.")
    record.rewind(2)
    assert [row["step"] for row in rows_of(tmp_path)] == ["1", "2"]
    assert [json.loads(line)["step"] for line in (tmp_path / "validation.jsonl").read_text().splitlines()] == [1, 2]
    Record(tmp_path).start({}, 1, "photos")
    assert not (tmp_path / "log.csv").exists() and not (tmp_path / "validation.jsonl").exists()


def test_states_that_cannot_be_read_are_named(tmp_path, capsys):
    with pytest.raises(ModelError, match="no training state"):
        read_state(tmp_path)
    for broken in (b"", b"garbage" * 99, {"step": 1}):
        if isinstance(broken, dict):
            torch.save(broken, tmp_path / "state.pt")
        else:
            (tmp_path / "state.pt").write_bytes(broken)
        with pytest.raises(ModelError, match=r"state\.pt is not a training state"):
            read_state(tmp_path)
    assert run(lambda: export.main(["codec", "--run", str(tmp_path), "-o", "x.safetensors", "--quality", "1"])) == 2
    assert "not a training state" in capsys.readouterr().err


def test_a_state_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    write_state(tmp_path, {"config": "{}", "ema": {}, "step": 3})

    def full(state, file):
        file.write(b"begun")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match=r"cannot write .*state\.pt \(is the disk full"):
        write_state(tmp_path, {"step": 4})
    assert read_state(tmp_path)["step"] == 3 and [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_run_stays_with_its_data(small_models, photos, tmp_path, monkeypatch, capsys):
    (tmp_path / "codec.yaml").write_text(CODEC)
    more = tmp_path / "more"
    shutil.copytree(photos, more)
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(small_models))
    options = ["--config", str(tmp_path / "codec.yaml"), "--lambda", "1", "--run", str(tmp_path / "r"), "--data"]
    assert train_codec.main([*options, str(photos)]) == 0
    assert train_codec.main([*options, str(more)]) == 0  # the same photos elsewhere
    name = next(f"{n}.png" for n in count() if not is_validation(Path(f"{n}.png")))
    photo(300, 300).save(more / name)
    assert run(lambda: train_codec.main([*options, str(more)])) == 2
    assert "holds a run on other data" in capsys.readouterr().err


def test_a_codec_run_stays_with_its_autoencoder(small_models, photos, tmp_path, monkeypatch):
    (tmp_path / "codec.yaml").write_text(CODEC)
    options = [
        "--config",
        str(tmp_path / "codec.yaml"),
        "--data",
        str(photos),
        "--lambda",
        "1",
        "--run",
        str(tmp_path / "r"),
    ]
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(small_models))
    assert train_codec.main(options) == 0
    other = tmp_path / "other.safetensors"
    tensors, card = read_artefact(small_models / "compact.safetensors", "autoencoder")
    tensors["latent_mean"] = tensors["latent_mean"] + 1
    write_artefact(other, tensors, card | {"identity": identity_of(tensors, CompactAutoencoder.convention)})
    with pytest.raises(ConfigError, match="another configuration"):
        train_codec.main([*options, "--vae", str(other)])
    exported = ["codec", "--run", str(tmp_path / "r"), "-o", str(tmp_path / "x.safetensors"), "--quality", "1"]
    with pytest.raises(ModelError, match="not the autoencoder"):
        export.main([*exported, "--vae", str(other)])
    for kind, output, *more in (
        ("video", "x.safetensors", "--images", str(other)),
        ("glc", "x", "--vae", str(other)),
        ("vq", "x.safetensors", "--data", str(photos)),
    ):
        with pytest.raises(InputError, match=r"training\.export codec"):
            export.main([kind, "--run", str(tmp_path / "r"), "-o", str(tmp_path / output), *more])
    with pytest.raises(OutputError, match=r"must end in \.safetensors"):
        export.main([*exported[:4], str(tmp_path / "x"), *exported[5:]])
    with pytest.raises(InputError, match="1 to 255"):
        export.main([*exported[:-1], "0"])
    assert export.main(exported) == 0


NORM = """
import sys
import torch
from accelerate import Accelerator
from training.data import Share
from training.losses import Phase, latent_terms
share = Share(Accelerator(cpu=True).process_index, Accelerator(cpu=True).num_processes)
wanted = torch.arange(24.0).reshape(4, 2, 3, 1)[share.rank :: share.world]
given = torch.full_like(wanted, 2.0, requires_grad=True)
norm = latent_terms(given, wanted, torch.ones(2), Phase(0, 4, 8, latent_norm=0.5), share)["latent_norm"]
norm.backward()
torch.save((norm.detach(), given.grad / share.world), f"{sys.argv[1]}-{share.rank}.pt")
if share.world > 1:
    torch.distributed.destroy_process_group()
"""


def test_the_norm_over_a_shared_batch_is_that_of_the_whole(tmp_path):
    """Of LIVE's latent-mix; gradients are averaged over processes, so that each weighs a share."""
    script = tmp_path / "norm.py"
    script.write_text(NORM)
    finish(script, tmp_path / "one", by=ALONE)
    finish(script, tmp_path / "two")
    whole, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("one-0", "two-0", "two-1"))
    assert torch.allclose(first[0], whole[0]) and torch.allclose(second[0], whole[0])
    assert torch.allclose(torch.stack((first[1], second[1]), 1).flatten(0, 1), whole[1])
