"""What a run leaves behind beside its state: config, commit and packages; a CSV of every step; validations; TensorBoard."""

from __future__ import annotations

import csv
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

PACKAGES = ("torch", "compressai", "accelerate", "numpy")


class Record:
    """The logs of a run folder: ``run.json``, ``log.csv``, ``validation.jsonl`` and TensorBoard events."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: SummaryWriter | None = None

    @property
    def writer(self) -> SummaryWriter:
        if self._writer is None:
            self._writer = SummaryWriter(str(self.folder))
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def start(self, config: dict[str, Any], processes: int) -> None:
        """Write ``run.json`` for a new run."""
        record = {
            "config": config,
            "commit": _git("rev-parse", "HEAD"),
            "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
            "packages": {name: version(name) for name in PACKAGES},
            "python": platform.python_version(),
            "processes": processes,
        }
        (self.folder / "run.json").write_text(json.dumps(record, indent=2) + "\n")

    def step(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"train/{name}", value, step)
        path = self.folder / "log.csv"
        fresh = not path.exists()
        with open(path, "a", newline="") as log:
            rows = csv.writer(log)
            if fresh:
                rows.writerow(["step", *figures])
            rows.writerow([step, *(f"{v:.6g}" for v in figures.values())])

    def validation(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"validation/{name}", value, step)
        with open(self.folder / "validation.jsonl", "a") as log:
            log.write(json.dumps({"step": step, **{k: round(v, 5) for k, v in figures.items()}}) + "\n")

    def rewind(self, step: int) -> None:
        """Drop what was logged after a step: it will run again."""
        path = self.folder / "log.csv"
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = [line for line in lines[1:] if line.endswith("\n") and int(line.split(",")[0]) <= step]
            path.write_text("".join(lines[:1] + kept))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stdout.strip()
