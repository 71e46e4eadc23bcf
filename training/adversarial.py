"""The adversary of perceptual decoders: a PatchGAN, the hinge loss and its adaptive weight.

Sources: Isola et al. 2017 (PatchGAN), Lim and Ye 2017 (hinge), Esser et al. 2021 (VQGAN: the adaptive weight, clamped to 1 in
GLC). Generator and discriminator learn in the same step: the generator's term sees the discriminator's weights as
constants, the discriminator's sees the generator's pictures as constants, so that one backward pass serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from live.errors import ConfigError

from .data import ALONE, Share
from .losses import Phase, distortion_terms

GROUPS = 8
"""Of channels, by which the discriminator normalises."""


@dataclass(frozen=True)
class AdversaryConfig:
    """weight: of the generator's term after it was balanced (0: no adversary); start: the step from which it counts, the
    discriminator learning ``lead`` steps before; width: channels of the discriminator's first layer."""

    weight: float = 0.0
    start: int = 0
    lead: int = 0
    width: int = 64


def check_adversary(adversary: AdversaryConfig, phases: tuple[Phase, ...]) -> None:
    """ConfigError where there is an adversary in a phase without a loss on pictures, which it is weighed by, or of a width that
    its normalisation cannot part."""
    if adversary.width < 1 or adversary.width * 2 % GROUPS:
        raise ConfigError(f"adversary.width must be a multiple of {GROUPS // 2}, not {adversary.width}")
    if adversary.weight and not all(phase.sees_pictures for phase in phases):
        raise ConfigError("adversary: it is weighed by the losses on pictures, so that every phase must have one")


class PatchDiscriminator(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] -> a score for every patch, (B, 1, h, w), of 70 px: 4 convolutions and the last."""

    def __init__(self, width: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for factor, stride in ((2, 2), (4, 2), (8, 1)):
            layers += [nn.Conv2d(width * factor // 2, width * factor, 4, stride, 1, bias=False)]
            layers += [nn.GroupNorm(GROUPS, width * factor), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layers(pictures * 2 - 1)


def discriminator_loss(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Hinge: mean of max(0, 1 - D(real)) and max(0, 1 + D(fake)); gradients for the discriminator alone."""
    scores = discriminator(torch.cat([real, fake.detach()]))
    real_scores, fake_scores = scores.chunk(2)
    return 0.5 * (F.relu(1 - real_scores).mean() + F.relu(1 + fake_scores).mean())


def generator_loss(discriminator: nn.Module, fake: Tensor) -> Tensor:
    """-D(fake), mean; gradients for the pictures alone."""
    constants = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    return -functional_call(discriminator, constants, (fake,)).mean()


def with_adversary(
    decoded: Tensor,
    distortion_of: Callable[[Tensor], dict[str, Tensor]],
    discriminator: nn.Module,
    weight: float,
    share: Share = ALONE,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of ``distortion_of(decoded)`` and the generator's loss, differentiable, and all terms by name.

    The generator's loss weighs ``weight`` times the norm of the distortion's gradient over that of its own, at most
    ``weight``. Both are taken at the pictures (B, 3, H, W), one layer after the decoder's last weights, where VQGAN takes
    them: so every gradient is computed once. share: of the batch, that the pictures are; the norms are of the whole batch.
    """
    leaf = decoded.detach().requires_grad_()
    terms = distortion_of(leaf)
    value = sum(terms.values(), torch.zeros((), device=leaf.device))
    (gradient,) = torch.autograd.grad(value, leaf)
    adversarial = generator_loss(discriminator, leaf)
    (of_adversary,) = torch.autograd.grad(adversarial, leaf)
    norms = torch.stack([gradient.square().sum(), of_adversary.square().sum()])
    if share.world > 1:
        torch.distributed.all_reduce(norms)
    of_distortion, of_generator = norms.sqrt()
    balance = weight * (of_distortion / (of_generator + 1e-8)).clamp(max=1.0)
    terms["generator"] = balance * adversarial.detach()
    linear = (decoded * (gradient + balance * of_adversary)).sum()
    return value.detach() + terms["generator"] + linear - linear.detach(), terms


def adversarial_loss(
    decoded: Tensor,
    pictures: Tensor,
    phase: Phase,
    adversary: AdversaryConfig,
    step: int,
    discriminator: PatchDiscriminator,
    bf16: bool,
    share: Share,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The distortion of decoded pictures (B, 3, H, W) in [0, 1] and, from its step on, what the adversary adds (a scalar with
    gradients for decoder and discriminator); all terms by name. bf16, share: as ``distortion_terms`` has them."""

    def distortion_of(decoded: Tensor) -> dict[str, Tensor]:
        return distortion_terms(decoded, pictures, phase, bf16, share)

    if not adversary.weight:
        terms = distortion_of(decoded)
        return sum(terms.values(), decoded.new_zeros(())), terms
    if step >= adversary.start:
        loss, terms = with_adversary(decoded, distortion_of, discriminator, adversary.weight, share)
    else:
        terms = distortion_of(decoded)
        loss = sum(terms.values(), decoded.new_zeros(()))
        terms["generator"] = decoded.new_zeros(())
    learns = step >= adversary.start - adversary.lead
    terms["discriminator"] = discriminator_loss(discriminator, pictures, decoded) if learns else decoded.new_zeros(())
    return loss + terms["discriminator"], terms
