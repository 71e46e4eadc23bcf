"""How long a training runs, at which learning rates, and when it saves and validates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from live.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """Steps, seed, optimiser and saving. Learning rate: linear warm-up, then cosine to zero over ``steps``.

    patience: if above 0, no cosine: the rate falls to a tenth whenever more validations than that bring no ``loss`` that is
    lower by a ten-thousandth than the lowest so far (as torch's ReduceLROnPlateau).
    gain_lr: factor on the learning rate of the quantiser's log gains, which must travel further than weights do, and of
    CompressAI's quantiles, which are fitted by a loss of their own and take no part in the clipping. clip: largest norm
    of the gradient; a stage's ``discriminator`` is clipped by itself.
    adversary_lr: factor on the learning rate of a stage's ``discriminator``.
    varied: whether crops of photos are varied (see ``data.Photos``); the published systems' are not, nor are those of clips.
    bf16: run the autoencoder's convolutions in bfloat16 (autocast) where the processor has it; about 1.8 times as fast.
    """

    steps: int
    lr: float = 1e-3
    gain_lr: float = 10.0
    adversary_lr: float = 0.3
    patience: int = 0
    warmup: int = 200
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 1
    save_minutes: float = 3.0
    validate_every: int = 1000
    varied: bool = True
    bf16: bool = True

    def __post_init__(self) -> None:
        for least, names in (
            (1, ("steps", "validate_every")),
            (0, ("lr", "seed", "warmup", "weight_decay", "patience", "gain_lr", "adversary_lr")),
        ):
            for name in names:
                if not getattr(self, name) >= least:
                    raise ConfigError(f"schedule.{name} must be {least} or more, not {getattr(self, name)}")
        for name in ("clip", "save_minutes"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"schedule.{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"schedule.ema must be 0 or more and below 1, not {self.ema}")

    def seed_at(self, step: int, process: int = 0) -> int:
        """Of a process's noise at a step; below 2^32, as torch's generator of the CPU ignores what is above."""
        return (self.seed * 1_000_003 + step + process * 2_654_435_761) % (1 << 32)

    def generator_at(self, step: int) -> torch.Generator:
        """For what holds for a whole batch, such as its rate: all processes that share the batch draw the same, and other
        numbers than the noise of any."""
        return torch.Generator().manual_seed(self.seed_at(step, -1))

    def lr_at(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        if self.patience:
            return self.lr * warm
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
