"""``python -m testing.learning STAGE=RUN... -o results/learning_glc.csv``: how training went, from the logs in run folders.

The stages in the order in which they were trained, each from the last; a run that went on in another folder is a stage of
its own. One tidy table: stage, step, split, figure, value. ``training`` rows are means over ``STEPS`` steps (a remainder of
less than half is left out), the last of which is given, without the weights that the losses had; ``validation`` rows are
as the run wrote them. The table is committed, the runs are not; ``testing.figures`` draws it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from live.command import Parser, run
from live.errors import InputError
from live.files import check_output, require_file, write_atomic

from .curves import STYLE, save_figure

STEPS = 50
PANELS = {"alex": "LPIPS-Alex", "dists": "DISTS", "bpp": "bpp"}
"""What is drawn, of training crops and, where it was measured, of the validation split."""
COLUMNS = ["stage", "step", "split", "figure", "value"]


def thinned(stage: str, folder: Path) -> list[dict[str, Any]]:
    """The rows of a run; InputError where it is none."""
    for name in ("run.json", "log.csv"):
        require_file(folder / name)
    try:
        config = json.loads((folder / "run.json").read_text())["config"]
        phases = config["phases"]
        log = pd.read_csv(folder / "log.csv")
        log = log.drop_duplicates("step", keep="last").sort_values("step")  # an interrupted run repeats some
        starts = [phase["start"] for phase in phases]
        phase_of = pd.cut(log["step"] - 1, [*starts, float("inf")], right=False, labels=False).astype(int)
        said = folder / "validation.jsonl"
        held_out = pd.read_json(said, lines=True) if said.is_file() else None
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{folder} does not hold the logs of a training run") from None
    for column in [name for name in log if name.startswith("d_")]:
        weights = phase_of.map(lambda number, term=column[2:]: weight_of(config, phases[int(number)], term))
        log[column[2:]] = log[column] / weights.where(weights != 0)
    shown = [name for name in log if name not in ("step", "lr", "rate", "grad_norm") and not name.startswith("d_")]
    groups = log.groupby((log["step"] - 1) // STEPS)
    means = groups.agg({"step": "max", **dict.fromkeys(shown, "mean")})[groups.size() > STEPS // 2]
    tidy = means.melt("step", shown, "figure").dropna().assign(split="training")
    rows = [tidy]
    if held_out is not None:
        rows.append(held_out.melt("step", var_name="figure").dropna().assign(split="validation"))
    return pd.concat(rows).assign(stage=stage)[COLUMNS].to_dict("records")


def weight_of(config: dict[str, Any], phase: dict[str, Any], term: str) -> float:
    """What a term of the distortion was multiplied with when it was logged; of clips the mean over the frames of a rollout too."""
    weight = config.get(term, 1.0) if term == "code" else phase.get(term, 1.0)
    levels = config.get("frame_weights", [1.0])
    predicted = range(max(1, phase.get("frames", 2) - 1))
    return weight * sum(levels[number % len(levels)] for number in predicted) / len(predicted)


def learning_plot(rows: pd.DataFrame, path: Path) -> None:
    """The panels over the steps of all stages, one after the other; dots are means over the rates of the validation split."""
    stages = list(rows["stage"].unique())
    lengths = rows.groupby("stage")["step"].max()
    begins = {name: sum(lengths[other] for other in stages[: stages.index(name)]) for name in stages}
    panels = [name for name in PANELS if (rows["figure"] == name).any()]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3), layout="constrained", squeeze=False)
        for axis, name in zip(axes[0], panels, strict=True):
            for stage in stages:
                here = rows[rows["stage"] == stage]
                curve = here[(here["split"] == "training") & (here["figure"] == name)]
                axis.plot(curve["step"] + begins[stage], curve["value"], color="#9c1f6b", linewidth=1)
                dots = here[(here["split"] == "validation") & here["figure"].str.fullmatch(rf"(rate\d+_)?{name}")]
                means = dots.groupby("step")["value"].mean()
                axis.plot(means.index + begins[stage], means, "o", color="#3b3b58", markersize=4)
                axis.axvline(begins[stage], color="#cccccc", linewidth=0.6, zorder=0)
                axis.annotate(stage, (begins[stage], 1), (2, 2), xycoords=("data", "axes fraction"),
                              textcoords="offset points", fontsize=6.5)  # fmt: skip
            axis.set_xlabel("step")
            axis.set_ylabel(PANELS[name])
            axis.set_yscale("log" if name == "bpp" else "linear")
        save_figure(figure, path)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.learning", description="Put the logs of training runs into one table.")
    parser.add_argument("runs", nargs="+", metavar="STAGE=RUN", help="what to call a stage, and its run folder")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="CSV")
    args = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for given in args.runs:
        stage, separator, folder = given.partition("=")
        if not (stage and separator and folder):
            raise InputError(f"{given} is not STAGE=RUN, for example: II=out/glc/runs/stage2")
        rows += thinned(stage, Path(folder))
    check_output(args.output, force=True)
    table = pd.DataFrame(rows, columns=COLUMNS)
    write_atomic(args.output, table.to_csv(index=False, float_format="%.5g").encode())
    print(f"{args.output}: {len(table)} rows")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
