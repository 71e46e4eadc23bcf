"""The code predictor of GLC: a transformer that names, at each position, the VQ index of the original's latent.

Source: GLC (9 layers, 8 heads, width 512, MLP 1024, learned positions for 16 x 16). It exists while
training alone: its cross-entropy says how much of what the picture means the decoded latents still tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 16
"""Positions a side that have learned embeddings: 256 px at f = 16."""


@dataclass(frozen=True)
class PredictorConfig:
    """Sizes of the transformer; the published ones are the default."""

    layers: int = 9
    heads: int = 8
    width: int = 512
    mlp: int = 1024


class CodePredictor(nn.Module):
    """Decoded latents (B, N, h, w), h and w up to ``SIDE`` -> logits over the codebook's entries, (B, K, h, w)."""

    def __init__(self, channels: int, codebook: int, config: PredictorConfig):
        super().__init__()
        self.embed = nn.Linear(channels, config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(SIDE, SIDE, config.width))
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.mlp, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, codebook))

    def forward(self, latents: Tensor) -> Tensor:
        height, width = latents.shape[2:]
        tokens = self.embed(latents.permute(0, 2, 3, 1)) + self.positions[:height, :width]
        logits = self.head(self.layers(tokens.flatten(1, 2)))
        return logits.unflatten(1, (height, width)).permute(0, 3, 1, 2)

    def loss(self, latents: Tensor, codes: Tensor) -> Tensor:
        """Cross-entropy in nats a position against the original's codes (B, h, w)."""
        return F.cross_entropy(self(latents), codes)
