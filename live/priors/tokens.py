"""The spatio-temporal categorical hyper module of GLC-video: a frame's side information in K vectors, however large it is.

Source: Jia et al. 2025 (arXiv 2505.16177). Weight maps made from the temporal context say where a vector looks, and where
it goes; the context is there before anything of the frame is decoded, so that maps cost no bits.

::

    [y, features] ── analysis ── pooled under K x heads softmax maps ── K tokens (B,N,K,1) ── nearest codebook entries
    entries ── spread by K x heads maps ── (B,N,h,w)                                       (maps: 1x1 of the features)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..depthconv import depth_conv_block, pointwise
from ..nets import Spread
from .exact import exact_twin, to_fixed
from .hyper import bits
from .quantiser import VectorQuantiser
from .tables import categorical_shares


class Tokens(nn.Module):
    """tokens K, each of N channels, quantised by one codebook; heads: parts of the channels that have maps of their own."""

    def __init__(self, channels: int, codebook: int, tokens: int, heads: int):
        super().__init__()
        self.analysis = depth_conv_block(2 * channels, channels)
        self.pooling = pointwise(channels, heads * tokens)
        self.quantiser = VectorQuantiser(codebook, channels)
        self.spreading = pointwise(channels, heads * tokens)
        self.spread = Spread()
        self.heads, self.tokens = heads, tokens

    def pooled(self, analysed: Tensor, features: Tensor) -> Tensor:
        """What ``analysis`` made and the temporal features, both (B, N, h, w) -> tokens (B, N, K, 1)."""
        weights = self.pooling(features).flatten(2).softmax(2).unflatten(1, (self.heads, self.tokens))
        parts = analysed.flatten(2).unflatten(1, (self.heads, -1))  # (B, heads, N / heads, h w)
        return (parts @ weights.mT).flatten(1, 2).unsqueeze(3)

    def forward(self, y: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """y and the temporal features (B, N, h, w) -> quantised tokens spread likewise, the bits of all, the quantiser's loss."""
        pooled = self.pooled(self.analysis(torch.cat([y, features], 1)), features)
        entries, loss, indices = self.quantiser(pooled)
        spread = self.spread(self.spreading(features), entries)
        return spread, bits(categorical_shares(self.quantiser.usage)[indices]), loss


class ExactTokens:
    """The decoder side of trained ``Tokens`` in integers (see ``exact``)."""

    def __init__(self, model: Tokens):
        self.codebook = to_fixed(model.quantiser.codebook.detach())
        self.spreading, self.spread = exact_twin(model.spreading), exact_twin(model.spread)

    def __call__(self, numbers: Tensor, features: Tensor) -> Tensor:
        """Numbers of entries (K,) int64 and the temporal features (1, N, h, w) in fixed point -> (1, N, h, w), likewise.

        A number that no entry has, which only a damaged file states, is taken for the nearest that one has.
        """
        entries = self.codebook[numbers.clamp(0, len(self.codebook) - 1)].T[None, :, :, None]
        return self.spread(self.spreading(features), entries)
