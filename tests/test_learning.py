"""The committed curves of training: thinned from a run's logs, and drawn."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from live.errors import InputError
from testing import learning
from testing.learning import STEPS, learning_plot, main


@pytest.fixture
def run_folder(tmp_path):
    """Two phases of 100 steps, DISTS weighing 2 and then 4; the logged terms are weighted. 30 steps stand there twice."""
    folder = tmp_path / "run"
    folder.mkdir()
    phases = [{"start": 0, "alex": 1.0, "dists": 2.0}, {"start": 100, "alex": 0.0, "dists": 4.0}]
    (folder / "run.json").write_text(json.dumps({"config": {"phases": phases}}))
    steps = [*range(1, 61), *range(31, 211)]
    rows = [f"{n},{n},1e-3,{n % 4},{0.01 * n},{0.5 if n <= 100 else 0},{0.2 if n <= 100 else 0.4}" for n in steps]
    (folder / "log.csv").write_text("step,loss,lr,rate,bpp,d_alex,d_dists\n" + "\n".join(rows) + "\n")
    (folder / "validation.jsonl").write_text('{"step": 100, "rate0_alex": 0.4, "rate1_alex": 0.2}\n')
    return folder


def test_means_without_weights(run_folder, tmp_path):
    assert main([f"one={run_folder}", f"two={run_folder}", "-o", str(tmp_path / "all.csv")]) == 0
    table = pd.read_csv(tmp_path / "all.csv")
    assert set(table["stage"]) == {"one", "two"} and set(table["split"]) == {"training", "validation"}
    training = table[(table["stage"] == "one") & (table["split"] == "training")]
    curves = {name: rows.set_index("step")["value"] for name, rows in training.groupby("figure")}
    assert set(curves) == {"loss", "bpp", "alex", "dists"}
    assert list(curves["loss"].index) == [STEPS, 2 * STEPS, 3 * STEPS, 4 * STEPS]  # the ten after are too few
    assert curves["loss"][STEPS] == pytest.approx((STEPS + 1) / 2)  # every step once
    assert list(curves["dists"]) == pytest.approx([0.1] * 4)
    assert list(curves["alex"].index) == [STEPS, 2 * STEPS]  # not measured where it weighs nothing
    assert table[table["split"] == "validation"]["value"].tolist() == [0.4, 0.2, 0.4, 0.2]


def test_frames_of_a_rollout_weigh_too(run_folder):
    phases = [
        {"start": 0, "alex": 1.0, "dists": 2.0, "frames": 2},
        {"start": 100, "alex": 1.0, "dists": 4.0, "frames": 4},
    ]
    config = {"phases": phases, "frame_weights": [1.2, 0.5], "code": 0.02}
    assert learning.weight_of(config, phases[0], "alex") == pytest.approx(1.2)
    assert learning.weight_of(config, phases[1], "dists") == pytest.approx(4 * (1.2 + 0.5 + 1.2) / 3)
    assert learning.weight_of({"code": 0.02}, {}, "code") == pytest.approx(0.02)
    (run_folder / "run.json").write_text(json.dumps({"config": config}))
    rows = [row for row in learning.thinned("one", run_folder) if row["figure"] == "dists"]
    assert [row["value"] for row in rows] == pytest.approx([0.1 / 1.2] * 2 + [0.1 / (2.9 / 3)] * 2)


def test_the_plot_shows_what_was_measured(run_folder, tmp_path, monkeypatch):
    main([f"one={run_folder}", f"two={run_folder}", "-o", str(tmp_path / "all.csv")])
    seen = []
    monkeypatch.setattr(learning, "save_figure", lambda figure, path: seen.append(figure))
    learning_plot(pd.read_csv(tmp_path / "all.csv").query("figure != 'dists'"), tmp_path / "plot.png")
    panels = seen[0].axes
    assert [axis.get_ylabel() for axis in panels] == ["LPIPS-Alex", "bpp"]
    dots = [line for line in panels[0].lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], round(line.get_ydata()[0], 6)) for line in dots] == [(100, 0.3), (300, 0.3)]


@pytest.mark.parametrize(
    ("given", "why"), [("no run", "is not STAGE=RUN"), ("one=", "is not STAGE=RUN"), ("one=missing", "does not exist")]
)
def test_what_is_no_run_is_named(given, why, tmp_path):
    with pytest.raises(InputError, match=why):
        main([given, "-o", str(tmp_path / "all.csv")])
    assert not (tmp_path / "all.csv").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("validation.jsonl", '{"step": 100, "rate0_alex": 0.4}\n{"step"'),
        ("log.csv", "step,loss\nfirst,1\n"),
        ("run.json", json.dumps({"config": {"phases": [{"start": 500}]}})),
    ],
)
def test_a_damaged_log_is_named(run_folder, tmp_path, name, text):
    (run_folder / name).write_text(text)
    with pytest.raises(InputError, match="does not hold the logs"):
        main([f"one={run_folder}", "-o", str(tmp_path / "all.csv")])


def test_a_log_of_something_else_is_named(run_folder, tmp_path):
    (run_folder / "run.json").write_text("{}")
    with pytest.raises(InputError, match="does not hold the logs"):
        main([f"one={run_folder}", "-o", str(tmp_path / "all.csv")])
