"""Stage I of GLC: the VQ autoencoder, L1 + LPIPS + VQ + hinge GAN with adaptive weight.

    python -m training.train_vq --config configs/glc_stage1.yaml --data DIR --run runs/glc-1 [--compact PATH | --init PATH]

``--compact``: an exported ``compact`` that the autoencoder grows from, by the steps of its rate model where that lies
beside it (the published VQGAN has a shape of its own and begins with nothing); ``--init``: an exported VQ autoencoder to
take further.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from live.artefact import read_artefact, read_card
from live.command import Parser, run
from live.config import load_yaml, parse
from live.errors import ConfigError, InputError, naming
from live.files import check_folder
from live.latents import load_autoencoder
from live.latents.compact import CompactAutoencoder
from live.latents.vq import VqAutoencoder
from live.latents.vq_net import FACTOR, VqConfig, VqNet
from live.nets import bfloat16
from live.registry import rate_model_path

from .adversarial import AdversaryConfig, PatchDiscriminator, adversarial_loss, check_adversary
from .data import ALONE, Share, split
from .engine import Engine
from .losses import Phase, check_phases, phase_at, picture_figures
from .schedule import Schedule

COMPONENT_PHOTOS, COMPONENT_CROP = 256, 128
COMPONENT_LEVEL = -2
"""The rate level of ``compact`` (about 0.08 bpp) in whose quantisation steps its latents' components are counted."""


@dataclass(frozen=True)
class VqTrainConfig:
    """Everything that ``train_vq`` reads. vq: weight of the quantiser's loss; init: identity of the weights that the run
    starts from, from the command line."""

    schedule: Schedule
    phases: tuple[Phase, ...]
    model: VqConfig = VqConfig()
    adversary: AdversaryConfig = AdversaryConfig()
    vq: float = 1.0
    init: str = ""


class VqTraining(nn.Module):
    """What is trained: the autoencoder with its quantiser, and its adversary."""

    def __init__(self, config: VqTrainConfig):
        super().__init__()
        self.net = VqNet(config.model)
        self.discriminator = PatchDiscriminator(config.adversary.width)


class VqStage:
    """What the engine runs: the loss of a step and the validation figures."""

    def __init__(self, config: VqTrainConfig, data: str | Path, compact: Path | None = None, init: Path | None = None):
        self.config, self.share = config, ALONE
        check_phases(config.phases, FACTOR)
        check_adversary(config.adversary, config.phases)
        crops = [phase.crop for phase in config.phases] + [COMPONENT_CROP] * bool(compact)
        self.train, self.held_out = split(data, max(crops), config.schedule.varied)
        torch.manual_seed(config.schedule.seed)
        self.model = VqTraining(config)
        if compact:
            self._grow_from(compact)
        if init:
            self.model.net.load_state_dict(_loaded(init, VqAutoencoder, config.model).net.state_dict())
        self.model.to(memory_format=torch.channels_last)

    def _grow_from(self, path: Path) -> None:
        compact = _loaded(path, CompactAutoencoder, self.config.model.inner)
        pictures, _ = self.train.batch(self.config.schedule.seed, 0, COMPONENT_PHOTOS, COMPONENT_CROP)
        gain = torch.ones(compact.channels)
        if rate_model_path(path).is_file():
            gain = read_artefact(rate_model_path(path), "rate_model")[0]["log_gain"][COMPONENT_LEVEL].float().exp()
        self.model.net.start_from(compact.net, gain, [p * 2 - 1 for p in pictures.split(16)])

    def place(self, share: Share) -> None:
        self.share = share
        self.model.to(share.device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float], list[Path]]:
        config, (phase, start) = self.config, phase_at(self.config.phases, step)
        pictures, files = self.train.batch(config.schedule.seed, start, phase.batch, phase.crop, self.share)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with bfloat16(config.schedule.bf16, pictures.device):
            latents = self.model.net.encoder(pictures * 2 - 1)
        quantised, vq_loss, _ = self.model.net.quantiser(latents.float())
        with bfloat16(config.schedule.bf16, pictures.device):
            decoded = self.model.net.decoder(quantised)
        loss, terms = adversarial_loss(
            decoded.float() / 2 + 0.5,
            pictures,
            phase,
            config.adversary,
            step,
            self.model.discriminator,
            config.schedule.bf16,
            self.share,
        )
        figures = {"vq": vq_loss.item(), **{f"d_{k}": v.item() for k, v in terms.items()}}
        return loss + config.vq * vq_loss, figures, files

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        self.model.eval()
        used: set[int] = set()

        def quantised(pictures: Tensor) -> tuple[Tensor, Tensor]:
            latents, _, codes = self.model.net.quantiser(self.model.net.encoder(pictures * 2 - 1))
            used.update(codes.flatten().tolist())
            return self.model.net.decoder(latents) / 2 + 0.5, pictures.new_zeros(())

        figures = picture_figures(quantised, self.held_out.to(self.share.device))
        self.model.train()
        return {"psnr": figures["psnr"], "alex": figures["alex"], "codes_used": float(len(used))}


def _loaded(path: Path, kind: type, sizes: object) -> VqAutoencoder | CompactAutoencoder:
    """An exported autoencoder; ConfigError unless it is of the kind and the sizes that the configuration states."""
    autoencoder = load_autoencoder(str(path))
    if type(autoencoder) is not kind or parse(kind.sizes, autoencoder.card["model"]) != sizes:
        raise ConfigError(f"{path} is of another kind or size than the configuration; it cannot be started from")
    return autoencoder


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m training.train_vq", description="Train the VQ autoencoder of GLC (stage I).")
    parser.add_argument("--config", default="configs/glc_stage1.yaml", help="(%(default)s)")
    parser.add_argument("--data", default=os.environ.get("LIVE_TRAIN"), help="folder of photos (default: LIVE_TRAIN)")
    parser.add_argument("--run", type=Path, required=True, help="run folder; an interrupted run there goes on")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--compact", type=Path, help="exported compact autoencoder to grow from")
    start.add_argument("--init", type=Path, help="exported VQ autoencoder to take further")
    args = parser.parse_args(argv)
    if not args.data:
        raise InputError("give a folder of photos with --data or LIVE_TRAIN")
    check_folder(args.run)
    values = load_yaml(args.config)
    with naming(args.config):
        config = parse(VqTrainConfig, values)
    compact = None if config.model.published else args.compact
    if given := compact or args.init:
        config = replace(config, init=read_card(given).get("identity", ""))
    stage = VqStage(config, args.data, compact, args.init)
    return Engine(stage, config.schedule, args.run, config).run()


if __name__ == "__main__":
    raise SystemExit(run(main, "run again to go on from the last state saved"))
