"""The vector quantiser: gradients straight through, a loss that draws both ways, and a codebook that does not collapse."""

from __future__ import annotations

import pytest
import torch
from processes import finish
from torch.nn import functional as F

from live.priors import quantiser
from live.priors.quantiser import COMMITMENT, DEAD, REVIVED, VectorQuantiser


def test_the_nearest_entry(monkeypatch):
    torch.manual_seed(0)
    vq, x = VectorQuantiser(50, 3).eval(), torch.randn(2, 3, 5, 7)
    vectors = x.permute(0, 2, 3, 1).flatten(0, 2)
    nearest = torch.cdist(vectors, vq.codebook).argmin(1).view(2, 5, 7)
    assert torch.equal(vq.indices(x), nearest)
    monkeypatch.setattr(quantiser, "VECTORS", 8)
    assert torch.equal(vq.indices(x), nearest), "whatever is in memory at a time"
    quantised, _, indices = vq(x)
    assert torch.equal(indices, nearest) and torch.allclose(quantised, vq.entries(nearest), atol=1e-6)


def test_gradients_pass_straight_through_and_the_loss_draws_both_ways():
    torch.manual_seed(0)
    vq, x = VectorQuantiser(9, 4).eval(), torch.randn(2, 4, 3, 3, requires_grad=True)
    quantised, loss, indices = vq(x)
    weight = torch.randn_like(quantised)
    (through,) = torch.autograd.grad((quantised * weight).sum(), x, retain_graph=True)
    assert torch.equal(through, weight)
    assert torch.autograd.grad(quantised.sum(), vq.codebook, allow_unused=True, retain_graph=True) == (None,)
    entries = vq.entries(indices)
    assert loss.item() == pytest.approx((1 + COMMITMENT) * F.mse_loss(x, entries).item())
    to_vectors, to_entries = torch.autograd.grad(loss, [x, vq.codebook])
    difference = 2 * (x - entries).detach() / x.numel()
    assert torch.allclose(to_vectors, COMMITMENT * difference, atol=1e-7)
    expected = torch.zeros_like(vq.codebook).index_add(
        0, indices.flatten(), -difference.permute(0, 2, 3, 1).flatten(0, 2)
    )
    assert torch.allclose(to_entries, expected, atol=1e-6)


def test_evaluation_moves_and_counts_nothing():
    vq = VectorQuantiser(9, 4).eval()
    before = vq.codebook.clone()
    vq(torch.randn(2, 4, 3, 3))
    assert torch.equal(vq.codebook, before) and not vq.usage.any()


def are_among(entries: torch.Tensor, vectors: torch.Tensor) -> bool:
    return bool((entries[:, None] == vectors).all(2).any(1).all())


def test_the_first_batch_places_the_entries():
    torch.manual_seed(0)
    vq, x = VectorQuantiser(16, 4), 5 + torch.randn(2, 4, 8, 8)
    _, loss, _ = vq(x)
    vectors = x.permute(0, 2, 3, 1).flatten(0, 2)
    assert are_among(vq.codebook, vectors)
    assert loss < 1.25 * x.var()


def test_entries_that_nobody_chooses_move_and_others_stay():
    torch.manual_seed(0)
    vq, x = VectorQuantiser(10, 2), torch.randn(1, 2, 6, 6)
    vq.usage.fill_(0.125)
    vq.usage[[3, 7]] = 0.9 * DEAD / 10
    vq.usage[5] = 1.1 * DEAD / 10
    before = vq.codebook.clone()
    vq(x)
    moved = (vq.codebook != before).any(1)
    assert moved.nonzero().flatten().tolist() == [3, 7]
    vectors = x.permute(0, 2, 3, 1).flatten(0, 2)
    assert are_among(vq.codebook[[3, 7]], vectors)
    assert (vq.usage[[3, 7]] >= 0.99 * REVIVED / 10).all(), "they are given time before they count as dead again"


STEPS = 500
"""An entry of even use that is never chosen again counts as dead after 390."""


def trained_from_collapse() -> tuple[torch.Tensor, VectorQuantiser]:
    """Train on eight clusters where one entry is nearest to all the data, as after latents drifted away from the codebook.

    Returns the distance from every cluster's middle to the nearest entry, and the quantiser.
    """
    torch.manual_seed(0)
    vq, centres = VectorQuantiser(32, 8), 10 * torch.eye(8)
    with torch.no_grad():
        vq.codebook[1:] += 60
        vq.usage.fill_(1 / 32)
    optimizer = torch.optim.Adam(vq.parameters(), 1e-2)
    for _ in range(STEPS):
        x = (centres[torch.randint(8, (4, 8, 8))] + 0.3 * torch.randn(4, 8, 8, 8)).permute(0, 3, 1, 2)
        loss = vq(x)[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.cdist(centres, vq.codebook.detach()).min(1).values, vq


def test_a_collapsed_codebook_comes_to_cover_the_data(monkeypatch):
    distances, vq = trained_from_collapse()
    shares = vq.usage / vq.usage.sum()
    perplexity = (-(shares * shares.clamp(min=1e-12).log()).sum()).exp()
    assert (distances < 1).all() and perplexity > 16 and 0.8 < vq.usage.sum() < 1.2
    monkeypatch.setattr(VectorQuantiser, "_revive", lambda *_: None)
    distances, vq = trained_from_collapse()
    assert (distances > 5).all() and (vq.usage > 0.01).sum() == 1, "else the remedy would have nothing to remedy"


SHARED = """
import sys
from pathlib import Path
import torch
from training.data import ALONE, Examples
from training.engine import Engine
from training.schedule import Schedule
from training.train_autoencoder import AutoencoderConfig
from live.priors.quantiser import VectorQuantiser


class Fit:
    def __init__(self):
        torch.manual_seed(0)
        self.model, self.share = VectorQuantiser(24, 3), ALONE
        self.data = Examples([Path(str(i)) for i in range(10)], [torch.randn(3, 9, 9) for _ in range(10)], True)

    def place(self, share):
        self.share = share

    def loss(self, step):
        batch, files = self.data.batch(1, step, 4, 4, self.share)
        return self.model(batch)[1], {}, files

    def validate(self):
        return {}


schedule = Schedule(steps=12, warmup=1, lr=1e-2)
stage = Fit()
engine = Engine(stage, schedule, sys.argv[1], AutoencoderConfig(schedule, ()))
engine.run()
torch.save(stage.model.state_dict(), f"{sys.argv[1]}/rank{engine.share.rank}.pt")
"""


def test_two_processes_keep_one_codebook(tmp_path):
    """Each sees half of every batch; entries, their use and where dead ones move to are the same in both."""
    script = tmp_path / "fit.py"
    script.write_text(SHARED)
    finish(script, tmp_path / "run")
    one, other = (torch.load(tmp_path / "run" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(one["codebook"], other["codebook"]) and torch.equal(one["usage"], other["usage"])
    assert (one["usage"] > 0).all(), "every entry was placed"
