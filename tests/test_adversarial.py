"""The adversary: hinge losses, who learns from which, the adaptive weight, and one backward pass that is plain autograd's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from training.adversarial import (
    AdversaryConfig,
    PatchDiscriminator,
    adversarial_loss,
    discriminator_loss,
    generator_loss,
    with_adversary,
)
from training.data import ALONE
from training.engine import Engine
from training.losses import Phase
from training.schedule import Schedule
from training.train_vq import VqTrainConfig

WEIGHT = 0.3


@pytest.fixture
def discriminator() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(8)


@pytest.fixture
def decoder() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))


def distortion_of(decoded: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"l1": (decoded - 0.5).abs().mean(), "mse": 3 * (decoded**2).mean()}


def test_a_score_for_every_patch_of_70_pixels(discriminator):
    scores = discriminator(torch.rand(2, 3, 128, 96))
    assert scores.shape == (2, 1, 14, 10)
    for norm in [module for module in discriminator.modules() if isinstance(module, nn.GroupNorm)]:
        norm.forward = lambda x: x  # a norm looks at the whole picture
    picture = torch.zeros(1, 3, 160, 160, requires_grad=True)
    discriminator(picture)[0, 0, 9, 9].backward()
    assert [len(picture.grad[0].sum(0).sum(side).nonzero()) for side in (0, 1)] == [70, 70]


class Scores(nn.Module):
    """A discriminator that says what it is told, for real and for fake pictures."""

    def __init__(self, real: list[float], fake: list[float]):
        super().__init__()
        self.scores = nn.Parameter(torch.tensor([*real, *fake]))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.scores[: len(pictures)]


def test_hinge_values():
    """Beyond the margin of 1 nothing is to be gained: D learns from what it does not tell apart well enough."""
    pictures = torch.zeros(2, 3, 8, 8)
    judge = Scores([2.0, 0.25], [-0.5, -3.0])
    loss = discriminator_loss(judge, pictures, pictures)
    assert loss.item() == pytest.approx(0.5 * ((0 + 0.75) / 2 + (0.5 + 0) / 2))
    loss.backward()
    assert judge.scores.grad.tolist() == [0, -0.25, 0.25, 0]
    assert generator_loss(Scores([2.0, 0.5], []), pictures).item() == pytest.approx(-1.25)


def test_each_learns_from_its_own_term(discriminator, decoder):
    pictures = torch.rand(2, 3, 64, 64)
    decoded = decoder(pictures)
    generator_loss(discriminator, decoded).backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(parameter.grad.any() for parameter in decoder.parameters())
    decoder.zero_grad()
    discriminator_loss(discriminator, pictures, decoded).backward()
    assert all(parameter.grad is None for parameter in decoder.parameters())
    weights = [parameter for name, parameter in discriminator.named_parameters() if name.endswith("weight")]
    assert all(weight.grad.any() for weight in weights), "the last bias moves real and fake scores alike"


@pytest.mark.parametrize("scale", [0.01, 100.0], ids=["balanced", "clamped"])
def test_one_backward_pass_is_plain_autograd(discriminator, decoder, scale):
    """Of distortion + weight x balance x generator, the balance a constant: the ratio of gradient norms, at most 1."""
    pictures = torch.rand(2, 3, 64, 64)

    def scaled(decoded: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: scale * term for name, term in distortion_of(decoded).items()}

    decoded = decoder(pictures)
    distortion, adversarial = sum(scaled(decoded).values()), generator_loss(discriminator, decoded)
    norms = [torch.autograd.grad(term, decoded, retain_graph=True)[0].norm() for term in (distortion, adversarial)]
    balance = (norms[0] / (norms[1] + 1e-8)).clamp(max=1)
    assert (balance == 1) == (scale > 1)
    expected = distortion + WEIGHT * balance * adversarial
    gradients = torch.autograd.grad(expected, list(decoder.parameters()), retain_graph=True)

    loss, terms = with_adversary(decoder(pictures), scaled, discriminator, WEIGHT)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(terms) == {"l1", "mse", "generator"}
    assert terms["generator"].item() == pytest.approx((WEIGHT * balance * adversarial).item(), rel=1e-5)
    loss.backward()
    for parameter, gradient in zip(decoder.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max())
    assert all(parameter.grad is None for parameter in discriminator.parameters())


def test_the_adversary_comes_in_by_steps(discriminator, decoder):
    """First neither, then the discriminator alone, then both; without a weight none at all."""
    pictures, phase, schedule = (
        torch.rand(2, 3, 64, 64),
        Phase(0, 2, 64, l1=1.0, alex=0.0),
        Schedule(steps=9, bf16=False),
    )
    adversary, plain = AdversaryConfig(weight=WEIGHT, start=6, lead=2, width=8), None
    for step, (learns, counts) in {3: (False, False), 4: (True, False), 6: (True, True)}.items():
        discriminator.zero_grad(), decoder.zero_grad()
        loss, terms = adversarial_loss(
            decoder(pictures), pictures, phase, adversary, step, discriminator, schedule.bf16, ALONE
        )
        loss.backward()
        assert (terms["discriminator"] > 0, terms["generator"] != 0) == (learns, counts)
        assert all((parameter.grad is not None) == learns for parameter in discriminator.parameters())
        gradient = decoder[0].weight.grad.clone()
        plain = gradient if plain is None else plain
        assert torch.equal(gradient, plain) != counts
        assert loss.item() == pytest.approx(sum(term.item() for term in terms.values()), rel=1e-5)
    _, terms = adversarial_loss(decoder(pictures), pictures, phase, AdversaryConfig(), 6, discriminator, False, ALONE)
    assert set(terms) == {"l1"}


class Steep:
    """A stage whose network and discriminator have gradients of very different size."""

    def __init__(self, factors: tuple[float, float]):
        self.factors, self.model = factors, nn.Module()
        self.model.net, self.model.discriminator = nn.Linear(4, 1), nn.Linear(4, 1)

    def place(self, share):
        pass

    def loss(self, step):
        ones = torch.ones(1, 4)
        loss = self.factors[0] * self.model.net(ones).sum()
        if self.factors[1]:
            loss = loss + self.factors[1] * self.model.discriminator(ones).sum()
        return loss, {}, [Path("none")]

    def validate(self):
        return {}


@pytest.mark.parametrize("factors", [(3.0, 1000.0), (1000.0, 0.1), (0.1, 0.0)])
def test_the_discriminator_is_clipped_by_itself(factors, tmp_path):
    """So that neither's steep gradient makes the other stand still; and one without gradients is no obstacle."""
    schedule, stage = Schedule(steps=1, clip=1.0), Steep(factors)
    engine = Engine(stage, schedule, tmp_path, VqTrainConfig(schedule, ()))
    figures = engine._one_step()
    lengths = [factor * 5**0.5 for factor in factors]  # of four weights' gradients and a bias's
    found = [parameters_norm(part) for part in (stage.model.net, stage.model.discriminator)]
    assert found == pytest.approx([min(1.0, length) for length in lengths], rel=1e-4)
    assert figures["grad_norm"] == pytest.approx(lengths[0], rel=1e-4)


def parameters_norm(module: nn.Module) -> float:
    return sum(p.grad.square().sum().item() for p in module.parameters() if p.grad is not None) ** 0.5
