"""Winograd's convolutions against the library's, and what exchanging them does to frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from live.latents import load_autoencoder
from live.latents.winograd import NARROWEST, WinogradConv, hastened
from live.pictures import WHOLE, decode_picture


@pytest.mark.parametrize("size", [(1, 1), (13, 9), (13, 17), (34, 80)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_results_of_a_convolution_at_any_size(size, layout):
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 40, 3, 1, 1)
    x = torch.randn(2, 24, *size).contiguous(memory_format=layout)
    with torch.inference_mode():
        expected = torch.nn.functional.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
        given = WinogradConv(layer)(x)
    assert given.shape == expected.shape
    assert (given - expected).abs().max() < 2e-5 * expected.abs().max()


def test_only_layers_that_gain_are_exchanged():
    wide, narrow = nn.Conv2d(NARROWEST, NARROWEST, 3, 1, 1), nn.Conv2d(NARROWEST, NARROWEST // 2, 3, 1, 1)
    strided, pointwise = nn.Conv2d(NARROWEST, NARROWEST, 3, 2, 1), nn.Conv2d(NARROWEST, NARROWEST, 1)
    mirrored = nn.Conv2d(NARROWEST, NARROWEST, 3, 1, 1, padding_mode="reflect")
    network = nn.Sequential(wide, nn.Sequential(narrow, strided), pointwise, mirrored)
    twin = hastened(network)
    exchanged, (kept, same_stride), *others = twin
    assert isinstance(exchanged, WinogradConv) and [kept, same_stride, *others] == [
        narrow,
        strided,
        pointwise,
        mirrored,
    ]
    assert network[0] is wide


def test_frames_are_the_pictures_to_a_level():
    """In 8 bits some values round the other way, by one; a tiled one must not be decoded so."""
    autoencoder = load_autoencoder("compact")
    torch.manual_seed(0)
    statistics = autoencoder.statistics
    latents = torch.randn(1, autoencoder.channels, 17, 21) * statistics.std[:, None, None]
    latents += statistics.mean[:, None, None]
    picture, frame = (
        np.asarray(decode_picture(autoencoder, latents, (165, 131), None, frame=frame)).astype(int)
        for frame in (False, True)
    )
    difference = np.abs(picture - frame)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    assert isinstance(autoencoder.net.decoder.residual[0], nn.Conv2d)  # pictures still go the plain way


def test_a_tiled_frame_is_decoded_the_plain_way(monkeypatch):
    autoencoder = load_autoencoder("compact")
    monkeypatch.setattr(type(autoencoder), "decode_frame", None)
    rows, columns = 8, WHOLE // 8 + 8
    latents, size = torch.zeros(1, autoencoder.channels, rows, columns), (8 * columns, 8 * rows)
    assert decode_picture(autoencoder, latents, size, None, frame=True).size == size
