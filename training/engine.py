"""The one training loop: deterministic steps, state saved by rename, exact resume, NaN stop, CSV and TensorBoard logs.

A stage gives the engine an object with ``model`` (trainable), ``loss(step) -> (loss, figures, files)`` and
``validate() -> figures``; the engine owns everything else. Randomness of step n is seeded by (seed, n), so a run that
was killed and resumed has the same loss sequence as one that was not.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from live.errors import ConfigError, LiveError


@dataclass(frozen=True)
class Schedule:
    """Steps, seed, optimiser and saving. Learning rate: linear warm-up, then cosine to zero over ``steps``.

    gain_lr: factor on the learning rate of the quantiser's log gains, which must travel further than weights do.
    bf16: run the autoencoder's convolutions in bfloat16 (autocast); about 1.8 times as fast where the CPU has it.
    """

    steps: int
    lr: float = 1e-3
    gain_lr: float = 10.0
    warmup: int = 200
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 1
    save_minutes: float = 3.0
    validate_every: int = 1000
    bf16: bool = True

    def lr_at(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))


class Stage(Protocol):
    model: nn.Module

    def loss(self, step: int) -> tuple[Tensor, dict[str, float], list[Path]]: ...

    def validate(self) -> dict[str, float]: ...


class TrainingDiverged(LiveError):
    """The loss became NaN or infinite; names the step, the batch's files and the last good state."""


class Engine:
    """Runs a stage in a folder that holds ``state.pt``, ``log.csv``, ``run.json`` and TensorBoard events."""

    def __init__(self, stage: Stage, schedule: Schedule, folder: str | Path, config: Any):
        self.stage, self.schedule, self.folder = stage, schedule, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state_path = self.folder / "state.pt"
        self.config = asdict(config)
        named = [(name, p) for name, p in stage.model.named_parameters() if p.requires_grad]
        gains = [p for name, p in named if name.endswith("log_gain")]
        weights = [p for name, p in named if not name.endswith("log_gain")]
        self.parameters = weights + gains
        groups = [{"params": weights, "factor": 1.0}, {"params": gains, "factor": schedule.gain_lr}]
        self.optimizer = torch.optim.AdamW(groups, lr=schedule.lr, weight_decay=schedule.weight_decay)
        self.ema = {name: value.detach().clone() for name, value in stage.model.state_dict().items()}
        self.step = 0
        self._stop = False
        if self.state_path.exists():
            self._resume()
        else:
            self._record_run()

    def run(self) -> None:
        """Train until the schedule's end, or until SIGTERM or SIGINT, which save the state first."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "_stop", True))
        writer, saved = SummaryWriter(str(self.folder)), time.monotonic()
        with tqdm(total=self.schedule.steps, initial=self.step, unit="step", mininterval=5) as bar:
            while self.step < self.schedule.steps and not self._stop:
                figures = self._one_step()
                self._log(writer, figures)
                bar.set_postfix({k: f"{v:.4g}" for k, v in figures.items()}, refresh=False)
                bar.update()
                due = time.monotonic() - saved > 60 * self.schedule.save_minutes
                validate = self.step % self.schedule.validate_every == 0 or self.step == self.schedule.steps
                if validate:
                    self._validate(writer)
                if due or validate:
                    self.save()
                    saved = time.monotonic()
        self.save()
        writer.close()

    def _one_step(self) -> dict[str, float]:
        torch.manual_seed(self.schedule.seed * 1_000_003 + self.step)
        rate = self.schedule.lr_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        loss, figures, files = self.stage.loss(self.step)
        if not torch.isfinite(loss):
            names = ", ".join(str(f) for f in files)
            raise TrainingDiverged(
                f"loss is {loss.item()} at step {self.step} on {names}; last good: {self.state_path}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        self._update_ema()
        return {"loss": loss.item(), "lr": rate, "grad_norm": norm.item(), **figures}

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = min(self.schedule.ema, self.step / (self.step + 10))
        for name, value in self.stage.model.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name] = value.clone()

    def _validate(self, writer: SummaryWriter) -> None:
        live = {name: value.detach().clone() for name, value in self.stage.model.state_dict().items()}
        self.stage.model.load_state_dict(self.ema)
        with torch.no_grad():
            figures = self.stage.validate()
        self.stage.model.load_state_dict(live)
        for name, value in figures.items():
            writer.add_scalar(f"validation/{name}", value, self.step)
        with open(self.folder / "validation.jsonl", "a") as log:
            log.write(json.dumps({"step": self.step, **{k: round(v, 5) for k, v in figures.items()}}) + "\n")

    def _log(self, writer: SummaryWriter, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(f"train/{name}", value, self.step)
        path = self.folder / "log.csv"
        fresh = not path.exists()
        with open(path, "a", newline="") as log:
            rows = csv.writer(log)
            if fresh:
                rows.writerow(["step", *figures])
            rows.writerow([self.step, *(f"{v:.6g}" for v in figures.values())])

    def save(self) -> None:
        """Write the whole state to a temporary file, then rename it into place."""
        state = {
            "step": self.step,
            "model": self.stage.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "config": json.dumps(self.config),
        }
        temporary = self.state_path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.state_path)

    def _resume(self) -> None:
        state = torch.load(self.state_path, map_location="cpu", weights_only=True)
        if json.loads(state["config"]) != json.loads(json.dumps(self.config)):
            raise ConfigError(f"{self.folder} holds a run of another configuration; choose a new folder with --run")
        self.stage.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema, self.step = state["ema"], state["step"]
        self._truncate_log()

    def _truncate_log(self) -> None:
        """Drop logged steps after the saved one: they will run again."""
        path = self.folder / "log.csv"
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = [line for line in lines[1:] if line.endswith("\n") and int(line.split(",")[0]) <= self.step]
            path.write_text("".join(lines[:1] + kept))

    def _record_run(self) -> None:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        record = {
            "config": self.config,
            "commit": commit,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        (self.folder / "run.json").write_text(json.dumps(record, indent=2) + "\n")
