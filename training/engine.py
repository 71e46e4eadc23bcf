"""The one training loop: deterministic steps, state saved by rename, exact resume, NaN stop, CSV and TensorBoard logs.

A stage gives the engine an object with ``model`` (trainable), ``loss(step) -> (loss, figures, files)`` and
``validate() -> figures``; the engine owns everything else. Randomness of step n is seeded by (seed, n, rank), so a run
that was killed and resumed has the same loss sequence as one that was not.

Started by ``accelerate launch`` or ``torchrun``, every process takes its share of each batch (the configuration states
the whole batch) and gradients are averaged, so that the model is the one that a single process would train. Rank 0
alone logs and writes, and its state is what all go on from: the others need not see its disk.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from tqdm import tqdm

from live.errors import ConfigError, LiveError
from live.files import make_folder

from .data import Share
from .record import STATE, Record, read_state, write_state
from .schedule import Schedule

STOPPED = 130
"""Exit code of a run that was told to stop: run it again to go on."""
MOST_SKIPPED = 10
"""Steps in a row whose gradient overflowed, which are passed over one by one, before the run has diverged."""


class Stage(Protocol):
    """What is trained. train: the examples; validates_loss: that ``validate`` gives a ``loss``; where it is not there, none."""

    model: nn.Module

    def place(self, share: Share) -> None: ...

    def loss(self, step: int) -> tuple[Tensor, dict[str, float], list[Path]]: ...

    def validate(self) -> dict[str, float]: ...


class TrainingDiverged(LiveError):
    """The loss, or every gradient of late, is NaN or infinite; names the step, the batch's files and the last good state."""


class Engine:
    """Runs a stage in a folder that holds ``state.pt`` and what ``record`` writes."""

    def __init__(self, stage: Stage, schedule: Schedule, folder: str | Path, config: Any):
        self.stage, self.schedule, self.folder = stage, schedule, Path(folder)
        make_folder(self.folder)
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.share = Share(self.accelerator.process_index, self.accelerator.num_processes, self.accelerator.device)
        stage.place(self.share)
        self.state_path = self.folder / STATE
        self.config, self.record = asdict(config), Record(self.folder)
        named = [(name, p) for name, p in stage.model.named_parameters() if p.requires_grad]
        quantiles = [p for name, p in named if name.endswith("quantiles")]
        gains = [p for name, p in named if name.endswith("log_gain")]
        others = [(name, p) for name, p in named if not name.endswith(("log_gain", "quantiles"))]
        adversary = [p for name, p in others if name.startswith("discriminator.")]
        weights = [p for name, p in others if not name.startswith("discriminator.")]
        self.parameters = weights + gains + quantiles + adversary
        self.clipped = [part for part in (weights + gains, adversary) if part]
        groups = [
            {"params": weights, "factor": 1.0},
            {"params": gains + quantiles, "factor": schedule.gain_lr},
            {"params": adversary, "factor": schedule.adversary_lr},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=schedule.lr, weight_decay=schedule.weight_decay, fused=True)
        self.ema = {name: value.detach().clone() for name, value in stage.model.state_dict().items()}
        self.step = 0
        self.plateau = {"best": math.inf, "waited": 0, "factor": 1.0}
        self._asked = self._stop = False  # a signal came; all processes know of it
        self._skipped = 0
        if schedule.patience and not getattr(stage, "validates_loss", False):
            raise ConfigError("patience waits for a validation loss, which this training has not; choose patience: 0")
        for phase in self.config.get("phases", ()):  # refused now, not hours later when the phase begins
            self.share.places(0, phase["batch"])
        state = [read_state(self.folder) if self.share.rank == 0 and self.state_path.exists() else None]
        if self.share.world > 1:
            broadcast_object_list(state)
        if state[0]:
            self._resume(state[0])
        elif self.share.rank == 0:
            self.record.start(self.config, self.share.world, str(getattr(stage, "train", "")))

    def run(self) -> int:
        """Train to the schedule's end, or until SIGTERM or SIGINT; the state is saved either way.

        Returns the exit code, 0 or (stopped before the end) ``STOPPED``, so that a sweep never exports half a run.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "_asked", True))
        main, saved = self.share.rank == 0, time.monotonic()
        with tqdm(total=self.schedule.steps, initial=self.step, unit="step", mininterval=5, disable=not main) as bar:
            while self.step < self.schedule.steps and not self._stop:
                figures = self._one_step()
                bar.set_postfix({k: f"{v:.4g}" for k, v in figures.items()}, refresh=False)
                bar.update()
                if main:
                    self.record.step(self.step, figures)
                validate = self.step % self.schedule.validate_every == 0 or self.step == self.schedule.steps
                if validate:
                    self._validate()
                if main and (validate or time.monotonic() - saved > 60 * self.schedule.save_minutes):
                    self.save()
                    saved = time.monotonic()
        if main:
            self.save()
            self.record.close()
            if self._stop:
                print(f"live: stopped after step {self.step}, which is kept; run it again to go on", file=sys.stderr)
        if self.share.world > 1:  # none leaves while another still listens to it
            self.accelerator.wait_for_everyone()
            torch.distributed.destroy_process_group()
        return 0 if self.step >= self.schedule.steps else STOPPED

    def _one_step(self) -> dict[str, float]:
        torch.manual_seed(self.schedule.seed_at(self.step, self.share.rank))
        rate = self.schedule.lr_at(self.step) * self.plateau["factor"]
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        loss, figures, files = self.stage.loss(self.step)
        if not torch.isfinite(self._agree(loss)):
            finite = bool(torch.isfinite(loss))  # another process names its own files
            raise self._diverged("another process's loss is not finite" if finite else f"loss is {loss.item()}", files)
        self.optimizer.zero_grad(set_to_none=True)
        quantile_loss = self.stage.model.aux_loss() if hasattr(self.stage.model, "aux_loss") else 0.0
        (loss + quantile_loss).backward()
        self._average_gradients()
        norms = [nn.utils.clip_grad_norm_(part, self.schedule.clip) for part in self.clipped]
        norms = torch.stack([norm.to(loss.device) for norm in norms])  # without gradients it lies on the CPU
        if torch.isfinite(norms).all():
            self.optimizer.step()
            self._skipped = 0
        elif (skipped := self._skipped + 1) < MOST_SKIPPED:
            self._skipped = skipped
        else:
            raise self._diverged(f"no gradient was finite in {skipped} steps, the last", files)
        self.step += 1
        self._update_ema()
        return {"loss": loss.item(), "lr": rate, "grad_norm": norms[0].item(), **figures}

    def _diverged(self, what: str, files: list[Path]) -> TrainingDiverged:
        saved = self.state_path if self.state_path.exists() else "none, no state has been saved yet"
        return TrainingDiverged(f"{what} at step {self.step} on {', '.join(map(str, files))}; last good: {saved}")

    def _agree(self, loss: Tensor) -> Tensor:
        """The loss averaged over processes; and whoever was told to stop, all stop after this step."""
        if self.share.world == 1:
            self._stop = self._asked
            return loss
        facts = self.accelerator.reduce(torch.stack([loss.detach(), torch.tensor(float(self._asked)).to(loss)]), "mean")
        self._stop = bool(facts[1] > 0)
        return facts[0]

    def _average_gradients(self) -> None:
        if self.share.world == 1:
            return
        # Without a gradient in any process there must be none: the optimiser would move those by its old momentum.
        given = torch.tensor([p.grad is not None for p in self.parameters], dtype=torch.float, device=self.share.device)
        counts = self.accelerator.reduce(given, "sum").tolist()
        parameters = [parameter for parameter, count in zip(self.parameters, counts, strict=True) if count]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        # reshape: gradients of channels-last weights have no view as a line.
        gradients = torch.cat([parameter.grad.reshape(-1) for parameter in parameters])
        means = self.accelerator.reduce(gradients, "mean")
        for parameter, mean in zip(parameters, means.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_(mean.view_as(parameter))

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = min(self.schedule.ema, self.step / (self.step + 10))
        for name, value in self.stage.model.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name] = value.clone()

    def _wait_on_plateau(self, figures: dict[str, float]) -> None:
        if not self.schedule.patience:
            return
        better = figures["loss"] < self.plateau["best"] * (1 - 1e-4)
        self.plateau["waited"] = 0 if better else self.plateau["waited"] + 1
        if better:  # alone: a loss that falls slowly is no plateau
            self.plateau["best"] = figures["loss"]
        if self.plateau["waited"] > self.schedule.patience:
            self.plateau |= {"waited": 0, "factor": self.plateau["factor"] / 10}

    def _validate(self) -> None:
        live = {name: value.detach().clone() for name, value in self.stage.model.state_dict().items()}
        self.stage.model.load_state_dict(self.ema)
        torch.manual_seed(self.schedule.seed_at(self.step, -1))
        with torch.no_grad():
            told = [self.stage.validate()]
        self.stage.model.load_state_dict(live)
        if self.share.world > 1:  # all wait, or not, on the same plateau
            broadcast_object_list(told)
        (figures,) = told
        if self.share.rank == 0:
            self.record.validation(self.step, figures)
        self._wait_on_plateau(figures)

    def save(self) -> None:
        """Write the whole state (see ``write_state``)."""
        state = {
            "step": self.step,
            "model": self.stage.model.state_dict(),
            "ema": self.ema,
            "plateau": self.plateau,
            "optimizer": self.optimizer.state_dict(),
            "config": json.dumps(self.config),
            "data": self._data(),
        }
        write_state(self.folder, state)

    def _data(self) -> str:
        """By what a run's examples are known again; empty for a stage without."""
        return getattr(getattr(self.stage, "train", None), "digest", "")

    def _resume(self, state: dict[str, Any]) -> None:
        if state["config"] != json.loads(json.dumps(self.config)):
            raise ConfigError(f"{self.folder} holds a run of another configuration; choose a new folder with --run")
        if state.get("data") and state["data"] != self._data():
            raise ConfigError(
                f"{self.folder} holds a run on other data; give what it began with, or a new folder with --run"
            )
        self.stage.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = {name: value.to(self.share.device) for name, value in state["ema"].items()}
        self.plateau, self.step = state["plateau"], state["step"]
        if self.share.rank == 0:
            self.record.rewind(self.step)
