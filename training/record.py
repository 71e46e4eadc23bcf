"""What a run leaves behind: its state, as it is read back; config, commit and packages; a CSV of every step; validations;
TensorBoard."""

from __future__ import annotations

import csv
import io
import json
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from live.errors import ModelError, OutputError, first_line, is_out_of_memory
from live.files import replacing, write_atomic

STATE, RUN = "state.pt", "run.json"
LOG, VALIDATION = "log.csv", "validation.jsonl"
LOGS: dict[str, Callable[[str], int]] = {
    LOG: lambda line: 0 if line.startswith("step") else int(line.split(",")[0]),
    VALIDATION: lambda line: json.loads(line)["step"],
}
"""The logs of steps, and of which step a line of theirs is."""
PACKAGES = ("torch", "compressai", "accelerate", "numpy")


def read_state(folder: Path) -> dict[str, Any]:
    """The state that the engine saved in a run folder (see ``Engine.save``), on the CPU, its ``config`` read; ModelError when
    there is none."""
    path = folder / STATE
    if not path.is_file():
        raise ModelError(f"no training state at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state | {"config": json.loads(state["config"]), "ema": state["ema"], "step": state["step"]}
    except Exception as error:  # torch's reader raises anything on damaged data
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{path} is not a training state that can be read; remove {folder} and train again") from None


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Save a state in a run folder: to a temporary file, then renamed into place; OutputError where that cannot be done."""
    try:
        with replacing(folder / STATE) as (file, _):
            torch.save(state, file)
    except RuntimeError as error:  # torch's way of saying that the disk is full
        if is_out_of_memory(error):
            raise
        raise OutputError(
            f"cannot write {folder / STATE} (is the disk full? {first_line(error)}); the last state saved is kept"
        ) from None


class Record:
    """The logs of a run folder: ``run.json``, ``log.csv``, ``validation.jsonl`` and TensorBoard events."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: SummaryWriter | None = None
        self._columns: list[str] = []
        self._next_step = 0  # from which on TensorBoard forgets what it was told before

    @property
    def writer(self) -> SummaryWriter:
        if self._writer is None:
            self._writer = SummaryWriter(str(self.folder), purge_step=self._next_step)
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def start(self, config: dict[str, Any], processes: int, data: str) -> None:
        """Write ``run.json`` for a new run; logs that one without a state has left go. data: what it learns from, in words."""
        for name in LOGS:
            (self.folder / name).unlink(missing_ok=True)
        record = {
            "config": config,
            "commit": _git("rev-parse", "HEAD"),
            "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
            "packages": {name: version(name) for name in PACKAGES},
            "python": platform.python_version(),
            "processes": processes,
            "data": data,
        }
        write_atomic(self.folder / RUN, (json.dumps(record, indent=2) + "\n").encode())

    def step(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"train/{name}", value, step)
        row = {"step": str(step), **{name: f"{value:.6g}" for name, value in figures.items()}}
        path = self.folder / LOG
        if not self._columns and path.exists():
            with open(path, newline="") as log:
                self._columns = next(csv.reader(log), [])
        if set(row) <= set(self._columns):
            with open(path, "a", newline="") as log:
                csv.DictWriter(log, self._columns).writerow(row)
        else:  # the first row, or of a phase whose loss has other terms
            self._widen(path, row)

    def _widen(self, path: Path, row: dict[str, str]) -> None:
        """Write the table anew with a row that has further columns."""
        rows = []
        if path.exists():
            with open(path, newline="") as log:
                rows = list(csv.DictReader(log))
        self._columns += [name for name in row if name not in self._columns]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows([*rows, row])
        write_atomic(path, text.getvalue().encode())

    def validation(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"validation/{name}", value, step)
        with open(self.folder / VALIDATION, "a") as log:
            log.write(json.dumps({"step": step, **{k: round(v, 5) for k, v in figures.items()}}) + "\n")

    def rewind(self, step: int) -> None:
        """Drop what was logged after a step, for it will run again, and lines that were not finished."""
        self._next_step = step + 1
        for name, step_of in LOGS.items():
            path = self.folder / name
            if path.exists():
                lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
                write_atomic(path, "".join(line for line in lines if step_of(line) <= step).encode())


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stdout.strip()
