"""Stages II and III of GLC: transform coding in the VQ autoencoder's latent, then joint training in pixels.

    python -m training.train_glc --config configs/glc_stage2.yaml --vae VQ --data DIR --run runs/glc-2 [--init CODEC]
    python -m training.train_glc --config configs/glc_stage3.yaml --vae VQ --data DIR --run runs/glc-3 --init CODEC --aids RUNS

The loss of a step, at a rate drawn for its batch, is D + bpp / lambda_rate + vq * the hyper quantiser's loss, bpp counting the
bits of a pixel:

    II    D = latent_mse * MSE(decoded latents, latents) + code * CE(their codes)           the autoencoder stays frozen
    III   D = L1 + LPIPS (+ DISTS) + generator + code * CE                                  codec and decoder move

The encoder and its codebook stay as stage I left them, so that the codes to predict keep their meaning; ``encoder: true``
moves the encoder too, without code prediction. ``--aids``: runs of earlier stages, whose code predictor and discriminator
(where they have them) this one goes on with.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from live.artefact import read_card
from live.checkpoints import load_codec
from live.codecs import Glc, GlcConfig
from live.command import Parser, run
from live.config import load_yaml, parse
from live.errors import ConfigError, InputError, naming
from live.files import check_folder
from live.latents import load_autoencoder
from live.latents.vq import VqAutoencoder
from live.nets import bfloat16

from .adversarial import AdversaryConfig, PatchDiscriminator, adversarial_loss, check_adversary
from .code_prediction import SIDE, CodePredictor, PredictorConfig
from .data import ALONE, Share, split
from .engine import Engine
from .losses import Phase, check_phases, latent_terms, phase_at, picture_figures
from .record import read_state
from .schedule import Schedule

AIDS = ("predictor.", "discriminator.")


@dataclass(frozen=True)
class GlcTrainConfig:
    """Everything that ``train_glc`` reads.

    lambdas: of the rates, lowest first; code: weight of the code prediction's cross-entropy (0: the ablation without it);
    vq: weight of the hyper quantiser's loss; encoder: whether the autoencoder's encoder moves too, in stage III without code
    prediction. From the command line: vae and init, identities of what the run starts from.
    """

    schedule: Schedule
    phases: tuple[Phase, ...]
    lambdas: tuple[float, ...]
    model: GlcConfig = GlcConfig()
    predictor: PredictorConfig = PredictorConfig()
    adversary: AdversaryConfig = AdversaryConfig()
    code: float = 0.0
    vq: float = 0.1
    encoder: bool = False
    vae: str = ""
    init: str = ""


class GlcTraining(nn.Module):
    """What is trained: the codec; the predictor; in stage III (``joint``) the autoencoder's decoder and its adversary, and
    its encoder where the configuration says so."""

    def __init__(self, config: GlcTrainConfig, autoencoder: VqAutoencoder, joint: bool):
        super().__init__()
        self.codec = Glc(config.model)
        codes = len(autoencoder.net.quantiser.codebook)
        self.predictor = CodePredictor(config.model.channels, codes, config.predictor) if config.code else None
        if joint:
            self.decoder = autoencoder.net.decoder.requires_grad_(True)
            self.discriminator = PatchDiscriminator(config.adversary.width)
        if config.encoder:
            self.encoder = autoencoder.net.encoder.requires_grad_(True)


class GlcStage:
    """What the engine runs: the loss of a step and the validation figures."""

    def __init__(
        self,
        config: GlcTrainConfig,
        data: str | Path,
        autoencoder: VqAutoencoder,
        init: Path | None = None,
        aids: Sequence[Path] = (),
    ):
        _check(config, autoencoder)
        self.config, self.share, self.autoencoder = config, ALONE, autoencoder
        self.joint = any(phase.sees_pictures for phase in config.phases)
        self.train, self.held_out = split(data, max(phase.crop for phase in config.phases), config.schedule.varied)
        torch.manual_seed(config.schedule.seed)
        self.model = GlcTraining(config, autoencoder, self.joint)
        if init:
            self._load_codec(init)
        for folder in aids:
            self._load_aids(folder)
        self.model.to(memory_format=torch.channels_last)

    def _load_codec(self, path: Path) -> None:
        trained = load_codec(path)
        if not isinstance(trained, Glc) or trained.config != self.config.model:
            raise ConfigError(f"{path} is of another codec or size than the configuration; it cannot be started from")
        self.model.codec.load_state_dict(trained.state_dict())

    def _load_aids(self, folder: Path) -> None:
        state = read_state(folder)["ema"]
        known = self.model.state_dict()
        taken = {k: v for k, v in state.items() if k.startswith(AIDS) and k in known}
        for name, value in taken.items():
            if value.shape != known[name].shape:
                raise ConfigError(f"{folder} holds {name} in another size than the configuration; leave --aids out")
        self.model.load_state_dict(taken, strict=False)

    def place(self, share: Share) -> None:
        self.share = share
        self.model.to(share.device)
        self.autoencoder.to(share.device)

    @property
    def _bf16(self) -> torch.autocast:
        return bfloat16(self.config.schedule.bf16 and self.model.training, self.share.device)

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> latents (B, N, H/16, W/16), with gradient where the encoder moves."""
        with self._bf16:
            return self.autoencoder.net.encoder(pictures * 2 - 1).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> pictures in [0, 1], unclamped, with gradient."""
        with self._bf16:
            return self.autoencoder.reconstruct(latents)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float], list[Path]]:
        config, (phase, start) = self.config, phase_at(self.config.phases, step)
        pictures, files = self.train.batch(config.schedule.seed, start, phase.batch, phase.crop, self.share)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        rate = int(torch.randint(config.model.rates, (), generator=config.schedule.generator_at(step)).item())
        latents = self.encode(pictures)
        decoded, estimate = self.model.codec.estimated(latents, rate)
        bpp = (estimate.y_bits + estimate.z_bits) / (pictures.numel() / 3)
        units = latents.new_ones(latents.shape[1])  # their own
        terms = latent_terms(decoded, latents, units, phase, self.share)
        distortion = sum(terms.values(), torch.zeros((), device=bpp.device))
        if self.joint:
            pixels, pixel_terms = adversarial_loss(
                self.decode(decoded),
                pictures,
                phase,
                config.adversary,
                step,
                self.model.discriminator,
                config.schedule.bf16,
                self.share,
            )
            distortion, terms = distortion + pixels, terms | pixel_terms
        if self.model.predictor is not None:
            codes = self.autoencoder.net.quantiser.indices(latents)
            terms["code"] = config.code * self.model.predictor.loss(decoded, codes)
            distortion = distortion + terms["code"]
        weight = config.lambdas[rate]
        # The rate's own scale: the discriminator's and the predictor's learning must not depend on lambda too much.
        loss = distortion + bpp / weight + config.vq * estimate.vq_loss
        figures = {"rate": rate, "bpp": bpp.item(), "vq": estimate.vq_loss.item()}
        return loss, figures | {f"d_{k}": v.item() for k, v in terms.items()}, files

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        self.model.eval()
        figures: dict[str, float] = {}
        held_out = self.held_out.to(self.share.device)
        for rate in range(self.config.model.rates):
            at_rate = picture_figures(partial(self._through, rate=rate), held_out)
            figures |= {f"rate{rate}_{k}": v for k, v in at_rate.items()}
        self.model.train()
        return figures

    def _through(self, pictures: Tensor, rate: int) -> tuple[Tensor, Tensor]:
        decoded, estimate = self.model.codec.estimated(self.encode(pictures), rate)
        return self.decode(decoded), (estimate.y_bits + estimate.z_bits) / (pictures.numel() / 3)


def encoder_moved(card: dict[str, Any]) -> bool:
    """Whether a VQ autoencoder's encoder has moved, in its last stage or one before, since its codebook was learned."""
    return bool(card.get("encoder_moved") or card.get("stage", {}).get("training", {}).get("encoder"))


def _check(config: GlcTrainConfig, autoencoder: VqAutoencoder) -> None:
    """ConfigError where the parts of a configuration do not fit one another, or not the autoencoder."""
    if len(config.lambdas) != config.model.rates:
        raise ConfigError(f"lambdas must be {config.model.rates}, one a rate, not {len(config.lambdas)}")
    if config.model.channels != autoencoder.channels:
        raise ConfigError(
            f"model.channels must be the autoencoder's {autoencoder.channels}, not {config.model.channels}"
        )
    check_phases(config.phases, autoencoder.factor * Glc.stride)
    check_adversary(config.adversary, config.phases)
    if config.code and encoder_moved(autoencoder.card):
        raise ConfigError(
            "code: the encoder of this VQ autoencoder has moved since its codebook was learned, so that codes mean little; "
            "take the autoencoder of stage I, or code: 0"
        )
    if config.encoder and (config.code or not all(phase.sees_pictures for phase in config.phases)):
        raise ConfigError("encoder: it moves only with losses on pictures in every phase, and with code: 0")
    for phase in config.phases:
        if config.code and phase.crop > SIDE * autoencoder.factor:
            raise ConfigError(f"phases: codes are predicted in crops of {SIDE * autoencoder.factor} px at most")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m training.train_glc", description="Train GLC's codec (stages II and III).")
    parser.add_argument("--config", required=True)
    parser.add_argument("--data", default=os.environ.get("LIVE_TRAIN"), help="folder of photos (default: LIVE_TRAIN)")
    parser.add_argument("--vae", default="glc-compact", help="VQ autoencoder: name or exported file (%(default)s)")
    parser.add_argument("--run", type=Path, required=True, help="run folder; an interrupted run there goes on")
    parser.add_argument("--init", type=Path, help="exported codec to start from")
    parser.add_argument(
        "--aids", type=Path, nargs="+", default=[], help="run folders whose predictor and discriminator to go on with"
    )
    args = parser.parse_args(argv)
    if not args.data:
        raise InputError("give a folder of photos with --data or LIVE_TRAIN")
    check_folder(args.run)
    autoencoder = load_autoencoder(args.vae)
    if not isinstance(autoencoder, VqAutoencoder):
        raise InputError(f"{args.vae} is no VQ autoencoder; train one with training.train_vq")
    values = load_yaml(args.config) | {"vae": autoencoder.identity}
    if args.init:
        values["init"] = read_card(args.init).get("identity", "")
    with naming(args.config):
        config = parse(GlcTrainConfig, values)
    stage = GlcStage(config, args.data, autoencoder, args.init, args.aids)
    return Engine(stage, config.schedule, args.run, config).run()


if __name__ == "__main__":
    raise SystemExit(run(main, "run again to go on from the last state saved"))
