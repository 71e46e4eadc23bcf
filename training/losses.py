"""Distortions between pictures, the phases of a schedule that weigh them, and the figures of a validation set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from live.errors import ConfigError
from live.metrics.perceptual import dists_network, elsewhere, lpips_network
from live.nets import bfloat16

from .data import ALONE, Share


@dataclass(frozen=True)
class Phase:
    """From step ``start`` on: batch size, crop (px) and the weights of the distortion's terms.

    On pictures in [0, 1]: l1, mse, alex (LPIPS-Alex), vgg (LPIPS-VGG), dists. On latents: latent_mse, in standard
    deviations of their channel; latent_norm, the L2 norm of the difference over the whole batch (LIVE's "latent-mix").

    LPIPS-Alex looks from another place each time (``live.metrics.perceptual.elsewhere``). LPIPS-VGG and DISTS run
    VGG-16 three times a step each: on whole batches they would cost several times what the autoencoder does. Each sees
    one picture a step, the middle ``vgg_crop`` px of it; at 0 all pictures, whole.
    """

    start: int
    batch: int
    crop: int
    l1: float = 2.0
    mse: float = 0.0
    alex: float = 1.0
    vgg: float = 0.0
    dists: float = 0.0
    latent_mse: float = 0.0
    latent_norm: float = 0.0
    vgg_crop: int = 96

    def __post_init__(self) -> None:
        for name in ("l1", "mse", "alex", "vgg", "dists", "latent_mse", "latent_norm", "vgg_crop"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"phases: {name} must be 0 or more, not {getattr(self, name)}")

    @property
    def sees_pictures(self) -> bool:
        """Whether a term needs the decoder's pictures."""
        return any((self.l1, self.mse, self.alex, self.vgg, self.dists))


def phase_at(phases: tuple[Phase, ...], step: int) -> tuple[Phase, int]:
    """The phase that a step belongs to, the last one that has started, and the place of the step's first example: how many
    the steps before it have taken, whatever their batches were."""
    begun = [phase for phase in phases if phase.start <= step]
    ends = [*(phase.start for phase in begun[1:]), step]
    return begun[-1], sum((end - phase.start) * phase.batch for phase, end in zip(begun, ends, strict=True))


def check_phases(phases: tuple[Phase, ...], unit: int) -> None:
    """ConfigError unless phases begin at step 0 and follow one another, and their crops are of whole ``unit`` px."""
    starts = [phase.start for phase in phases]
    if not starts or starts[0] or sorted(set(starts)) != starts:
        raise ConfigError("phases: the first must have start 0, and each must follow the one before")
    for phase in phases:
        if phase.batch < 1:
            raise ConfigError(f"phases: a batch must be 1 or more, not {phase.batch}")
        if phase.crop < unit or phase.crop % unit:
            raise ConfigError(f"phases: a crop must be a multiple of {unit} px, not {phase.crop}")


def channels_last(values: Tensor) -> Tensor:
    """A copy (B, C, H, W) float32 that may take part in a gradient, whatever mode the values came from."""
    return values.float().clone(memory_format=torch.channels_last)


def distortion_terms(
    decoded: Tensor, pictures: Tensor, weights: Phase, bf16: bool = False, share: Share = ALONE
) -> dict[str, Tensor]:
    """The weighted terms of D by name; pictures and reconstruction (B, 3, H, W) in [0, 1]. Zero weights cost nothing.

    share: of the batch, that they are; the mean of all shares' gradients is that of the whole batch, but that each process has
    LPIPS-Alex look from a place of its own.
    """
    terms = {}
    if weights.l1:
        terms["l1"] = weights.l1 * F.l1_loss(decoded, pictures)
    if weights.mse:
        terms["mse"] = weights.mse * F.mse_loss(decoded, pictures)
    if weights.alex:
        terms["alex"] = weights.alex * lpips_network("alex").to(decoded.device)(*elsewhere(decoded, pictures)).mean()
    for name, weight, network, which, owner in (
        ("vgg", weights.vgg, partial(lpips_network, "vgg"), slice(-1, None), share.world - 1),
        ("dists", weights.dists, dists_network, slice(1), 0),
    ):
        if not weight:
            continue
        a, b, others = decoded, pictures, 0
        if weights.vgg_crop:
            if share.rank != owner:  # another process has the picture, the batch's last or first
                terms[name] = 0.0 * decoded.mean()
                continue
            a, b = (middle(of[which], weights.vgg_crop) for of in (decoded, pictures))
            others = share.world - 1  # whose zeros the mean of all gradients counts in
        with bfloat16(bf16, decoded.device):
            distance = weight * network().to(decoded.device)(a, b).mean()
        terms[name] = distance + others * (distance - distance.detach())
    return terms


def latent_terms(
    decoded: Tensor, latents: Tensor, std: Tensor, weights: Phase, share: Share = ALONE
) -> dict[str, Tensor]:
    """The weighted terms of D on latents (B, c, h, w) by name; std: of their channels, (c,); share: of the batch, that
    they are."""
    terms = {}
    if weights.latent_mse:
        terms["latent_mse"] = weights.latent_mse * (((decoded - latents) / std.reshape(-1, 1, 1)) ** 2).mean()
    if weights.latent_norm:
        terms["latent_norm"] = weights.latent_norm * _norm(decoded - latents, share)
    return terms


def _norm(difference: Tensor, share: Share) -> Tensor:
    """The L2 norm over the batch that processes share; the mean of their gradients is its gradient."""
    if share.world == 1:
        return torch.linalg.vector_norm(difference)
    mine = difference.square().sum()
    whole = mine.detach().clone()
    torch.distributed.all_reduce(whole)
    norm = whole.sqrt()
    return norm + share.world * (mine - mine.detach()) / (2 * norm).clamp(min=1e-12)


def middle(pictures: Tensor, side: int) -> Tensor:
    """The middle of pictures (B, 3, H, W), at most ``side`` px a side."""
    height, width = (min(size, side) for size in pictures.shape[2:])
    top, left = (pictures.shape[2] - height) // 2, (pictures.shape[3] - width) // 2
    return pictures[:, :, top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)


def picture_figures(model: Callable[[Tensor], tuple[Tensor, Tensor]], pictures: Tensor) -> dict[str, float]:
    """Means over pictures (N, 3, H, W) of model(pictures): bpp estimated, PSNR (dB, a picture), LPIPS-Alex from the first pixel."""
    sums = {"bpp": 0.0, "psnr": 0.0, "alex": 0.0}
    for batch in pictures.split(8):
        decoded, bpp = model(batch)
        for name, value in ({"bpp": bpp.item()} | likeness(decoded, batch)).items():
            sums[name] += value * len(batch) / len(pictures)
    return sums


def likeness(decoded: Tensor, pictures: Tensor) -> dict[str, float]:
    """Means over pictures (N, 3, H, W) of what was decoded, clamped to [0, 1]: PSNR (dB, per picture), LPIPS-Alex from the first
    pixel."""
    decoded = decoded.clamp(0, 1)
    mse = ((decoded - pictures) ** 2).mean((1, 2, 3))
    alex = lpips_network("alex").to(pictures.device)(decoded, pictures).mean()
    return {"psnr": (-10 * torch.log10(mse)).mean().item(), "alex": alex.item()}
