"""A vector quantiser: every position's vector becomes the nearest entry of a learned codebook.

Sources: van den Oord et al. 2017 (VQ-VAE: straight-through gradients, codebook and commitment losses); Zheng and Vedaldi
2023 (CVQ-VAE) for the remedy against collapse: entries that nobody chooses move to vectors of the batch.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

COMMITMENT = 0.25
"""beta: weight of the loss that draws vectors to their entries, beside the one that draws entries to vectors."""
USAGE_DECAY = 0.99
DEAD, REVIVED = 0.02, 0.2
"""An entry is dead when it is chosen less often than this share of an even use, and counts as so much when it was moved."""
VECTORS = 1024
"""Vectors whose distances to all entries are in memory at a time: 64 MiB of a codebook of 16,384."""


class VectorQuantiser(nn.Module):
    """``size`` entries of ``channels`` values. Buffer ``usage``: how often each was chosen of late, tending to a sum of one."""

    def __init__(self, size: int, channels: int):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(size, channels))
        self.register_buffer("usage", torch.zeros(size))

    @torch.no_grad()
    def indices(self, x: Tensor) -> Tensor:
        """Vectors (B, c, h, w) -> their nearest entries' numbers (B, h, w) int64."""
        vectors, lengths = x.permute(0, 2, 3, 1).flatten(0, 2), self.codebook.square().sum(1)
        nearest = [(lengths - 2 * part @ self.codebook.T).argmin(1) for part in vectors.split(VECTORS)]
        return torch.cat(nearest).view(x.shape[0], *x.shape[2:])

    def entries(self, indices: Tensor) -> Tensor:
        """Numbers (B, h, w) -> entries (B, c, h, w)."""
        return F.embedding(indices, self.codebook).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (B, c, h, w) -> quantised, their gradient passing straight through; the loss (scalar); the numbers.

        While training, the use of entries is kept, and dead ones move to vectors of the batch.
        """
        if self.training:
            self._revive(x.detach())
        indices = self.indices(x)
        entries = self.entries(indices)
        loss = F.mse_loss(entries, x.detach()) + COMMITMENT * F.mse_loss(x, entries.detach())
        if self.training:
            self._count(indices)
        return x + (entries - x).detach(), loss, indices

    @torch.no_grad()
    def _count(self, indices: Tensor) -> None:
        counts = torch.bincount(indices.flatten(), minlength=len(self.usage)).to(self.usage)
        shares = _agreed(counts / counts.sum())
        self.usage.mul_(USAGE_DECAY).add_((1 - USAGE_DECAY) * shares)

    @torch.no_grad()
    def _revive(self, x: Tensor) -> None:
        """Move dead entries onto vectors drawn from the batch; at the very first batch all are dead."""
        dead = (self.usage < DEAD / len(self.usage)).nonzero()[:, 0]
        vectors = x.permute(0, 2, 3, 1).flatten(0, 2)
        dead = dead[torch.randperm(len(dead), device=dead.device)[: len(vectors)]]
        drawn = vectors[torch.randint(len(vectors), (len(dead),), device=x.device)]
        if dist.is_initialized():  # all processes must move the same entries to the same places
            for agreed in (dead, drawn):
                dist.broadcast(agreed, 0)
        self.codebook[dead] = drawn
        self.usage[dead] = REVIVED / len(self.usage)


def _agreed(shares: Tensor) -> Tensor:
    """The mean over all processes."""
    if dist.is_initialized():
        dist.all_reduce(shares)
        shares = shares / dist.get_world_size()
    return shares
