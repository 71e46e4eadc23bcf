"""diffusers' ``AutoencoderKL`` and ``AutoencoderTiny`` as plugs: what is here first, then the hub.

What travels by word of mouth elsewhere is read from the model's own config.json and applied exactly once::

    encode: z = (mode(E(x)) - shift) * scale        decode: picture = D(z / scale + shift)

scale is ``scaling_factor`` and shift is ``shift_factor``; with ``latents_mean`` and ``latents_std`` they go by channel:
scale = scaling_factor / latents_std, shift = latents_mean. AutoencoderTiny states 1 and 0: its latents are diffusion's.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, ModelError, first_line
from ..tiles import Network
from .base import Autoencoder, Statistics, identity_of
from .precision import GuardedNet, parse_dtype
from .statistics import find_statistics

CLASSES = ("AutoencoderKL", "AutoencoderTiny")
RANGES = ("-1..1", "0..1")
CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"


class DiffusersAutoencoder(Autoencoder):
    """Loads an ``AutoencoderKL`` or ``AutoencoderTiny`` saved by diffusers, from safetensors only.

    source: folder or hub id; of a whole pipeline, the folder's ``vae`` is taken. subfolder: where in it the model lies.
    dtype: "float32", "float16" or "bfloat16", float32 where that overflows. input_range: what the network is fed and
    gives: "-1..1", as it was trained, or "0..1", the quirk of LIVE's reference (AutoencoderKL only).
    statistics: of the latents, measured by the caller (see ``find_statistics`` for what applies otherwise).
    ``conventions`` holds class, input_range, scale and shift; they are part of the identity, the precision is not.
    """

    def __init__(
        self,
        source: str | Path,
        name: str | None = None,
        *,
        subfolder: str | None = None,
        dtype: str | torch.dtype = "float32",
        input_range: str = "-1..1",
        statistics: Statistics | None = None,
    ):
        self.name = name or str(source)
        precision = parse_dtype(dtype)
        folder = model_folder(source, subfolder)
        config = _read_config(folder)
        kind = config.get("_class_name")
        if kind not in CLASSES:
            raise ModelError(f"{self.name} is of class {kind}; LIVE reads {' and '.join(CLASSES)}")
        if input_range not in RANGES or (input_range != RANGES[0] and kind != "AutoencoderKL"):
            raise InputError(
                f"input range {input_range} does not fit {kind}; use -1..1 (AutoencoderKL also takes 0..1)"
            )
        net = _load(folder, kind)
        if net.config.in_channels != 3 or net.config.out_channels != 3:
            raise ModelError(f"{self.name} is not an autoencoder of RGB pictures; choose another")
        self.kind, self.unit_range = kind, input_range == "0..1"
        self.channels, self.factor = net.config.latent_channels, _factor(net.config)
        self.scale, self.shift = _scale_and_shift(net.config, self.name)
        scale, shift = _numbers(self.scale), _numbers(self.shift)
        self.diffusion_scale = scale if isinstance(scale, float) else None
        self.conventions = {"class": kind, "input_range": input_range, "scale": scale, "shift": shift}
        self.identity = identity_of(net.state_dict(), f"diffusers-1: {json.dumps(self.conventions, sort_keys=True)}")
        self.statistics = find_statistics(self.identity, self.channels, statistics, folder)
        self.net = GuardedNet(net, precision, self.name)

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> Tensor:
        step = _mode if self.kind == "AutoencoderKL" else _latents
        return (self.net.run(step, self._to_network(pictures)) - self.shift) * self.scale

    @torch.inference_mode()
    def posterior(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """For research: what ``encode`` gives, the posterior's mean, and its standard deviation, of the same shape. InputError
        where there is no posterior."""
        if self.kind != "AutoencoderKL":
            raise InputError(f"{self.name} has no posterior; use encode")
        mean, std = self.net.run(_mean_and_std, self._to_network(pictures)).chunk(2, 1)
        return (mean - self.shift) * self.scale, std * self.scale

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        return self._from_network(self.net.run(_decoded, latents / self.scale + self.shift)).clamp_(0, 1)

    def reconstruct(self, latents: Tensor) -> Tensor:
        return self._from_network(_decoded(self.net.full, latents / self.scale + self.shift).float())

    def to(self, device: torch.device) -> None:
        self.net.to(device)
        self.scale, self.shift = self.scale.to(device), self.shift.to(device)

    def networks(self) -> tuple[Network, Network]:
        step = _mode if self.kind == "AutoencoderKL" else _latents
        return partial(step, self.net.full), partial(_decoded, self.net.full)

    def _to_network(self, pictures: Tensor) -> Tensor:
        return pictures if self.unit_range else pictures * 2 - 1

    def _from_network(self, pictures: Tensor) -> Tensor:
        return pictures if self.unit_range else pictures * 0.5 + 0.5


def _mode(net: nn.Module, pictures: Tensor) -> Tensor:
    return net.encode(pictures).latent_dist.mode()


def _mean_and_std(net: nn.Module, pictures: Tensor) -> Tensor:
    posterior = net.encode(pictures).latent_dist
    return torch.cat([posterior.mean, posterior.std], 1)


def _latents(net: nn.Module, pictures: Tensor) -> Tensor:
    return net.encode(pictures).latents


def _decoded(net: nn.Module, latents: Tensor) -> Tensor:
    return net.decode(latents).sample


def model_folder(source: str | Path, subfolder: str | None = None) -> Path:
    """The local folder that holds a model's config and weights, downloading them from the hub if they are not here.

    source: a folder, whose ``vae`` is taken when it is a whole pipeline, or a hub id "org/name". ModelError in words.
    """
    folder = Path(source)
    if not folder.is_dir():
        return _hub_folder(str(source), subfolder)
    candidates = [folder / subfolder] if subfolder else [folder, folder / "vae"]
    for candidate in candidates:
        if (candidate / CONFIG).is_file():
            return candidate
    raise ModelError(f"{candidates[0]} holds no {CONFIG}; give a folder that diffusers' save_pretrained wrote")


def _hub_folder(repository: str, subfolder: str | None) -> Path:
    """The cached snapshot of a hub repository: the network is tried only when the cache does not hold both files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    prefix = f"{subfolder}/" if subfolder else ""
    wanted = [prefix + CONFIG, prefix + WEIGHTS]
    for offline in (True, False):
        try:
            root = Path(snapshot_download(repository, allow_patterns=wanted, local_files_only=offline))
        except (OSError, ValueError, HfHubHTTPError):  # not cached; or offline, no such repository, no access
            continue
        if all((root / path).is_file() for path in wanted):
            return root / prefix
    raise ModelError(
        f"cannot load the autoencoder {repository}{f' ({subfolder})' if subfolder else ''}: it is not in the local "
        "cache and the hub does not give it; connect once, or give a local folder"
    )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        raise ModelError(f"{folder / CONFIG} is not readable JSON; fetch the model again") from None
    return config if isinstance(config, dict) else {}


def _load(folder: Path, kind: str) -> Any:
    """The diffusers model in float32; ModelError unless the file holds every weight and no other."""
    import diffusers

    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} holds no {WEIGHTS}; save the model with safe_serialization=True")
    try:
        net, report = getattr(diffusers, kind).from_pretrained(
            folder,
            torch_dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # diffusers and safetensors raise anything on damaged files or odd configurations
        raise ModelError(f"cannot load the autoencoder in {folder}: {first_line(error)}; fetch it again") from None
    wrong = [key for part in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report.get(part) or ()]
    if wrong:  # diffusers only warns and leaves such weights at random
        raise ModelError(f"{folder / WEIGHTS} does not fit its {CONFIG} ({len(wrong)} tensors); fetch both again")
    return net


def _factor(config: Any) -> int:
    stages = config.get("encoder_block_out_channels") or config["block_out_channels"]
    return 2 ** (len(stages) - 1)


def _scale_and_shift(config: Any, name: str) -> tuple[Tensor, Tensor]:
    """scale and shift, each (1, 1 or c, 1, 1) float32."""
    scale = torch.tensor([config.get("scaling_factor") or 1.0])
    shift = torch.tensor([config.get("shift_factor") or 0.0])
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        scale, shift = scale / torch.tensor(std).flatten(), torch.tensor(mean).flatten().float()
    if not (scale.isfinite() & (scale != 0)).all() or scale.numel() not in (1, config["latent_channels"]):
        raise ModelError(f"the configuration of {name} states an impossible scale; correct its {CONFIG}")
    return scale.reshape(1, -1, 1, 1), shift.reshape(1, -1, 1, 1)


def _numbers(tensor: Tensor) -> float | list[float]:
    """A tensor's values in few digits, that a text of them is the same everywhere; one number where there is one."""
    values = [float(f"{value:.7g}") for value in tensor.flatten().tolist()]
    return values[0] if len(values) == 1 else values
