"""The code predictor of GLC: it learns codes by what the latents hold and by where they lie; the published size."""

from __future__ import annotations

import torch

from training.code_prediction import SIDE, CodePredictor, PredictorConfig


def test_the_code_predictor_learns_codes_by_content_and_place():
    torch.manual_seed(0)
    predictor = CodePredictor(4, 6, PredictorConfig(1, 2, 32, 32))
    assert predictor(torch.zeros(2, 4, 3, SIDE)).shape == (2, 6, 3, SIDE)
    latents = torch.randn(4, 4, 3, 5)
    codes = (latents.argmax(1) + 2 * (torch.arange(5) > 2)).clamp(max=5)
    optimizer, losses = torch.optim.Adam(predictor.parameters(), 1e-2), []
    for _ in range(60):
        losses.append(predictor.loss(latents, codes))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


def test_the_published_size():
    """9 layers, 8 heads, width 512, MLP 1024, positions of 16 x 16, counted."""
    predictor = CodePredictor(256, 16384, PredictorConfig())
    layers = sum(p.numel() for p in predictor.layers.parameters())
    assert layers == 9 * (4 * 512 * 512 + 4 * 512 + 2 * 512 * 1024 + 1024 + 512 + 4 * 512)
    assert predictor.positions.shape == (16, 16, 512) and predictor.head[-1].out_features == 16384
