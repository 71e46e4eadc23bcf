"""A larger autoencoder started from a smaller one: the smaller one's weights in their places, and close to its function."""

from __future__ import annotations

import pytest
import torch
from conftest import photo

from live.config import merge, parse
from live.errors import ConfigError
from live.media import to_tensor
from training.grow import grow
from training.train_autoencoder import AutoencoderConfig, CompressibleAutoencoder

SMALL = {
    "schedule": {"steps": 1},
    "phases": [],
    "model": {
        "channels": 6, "encoder_widths": [8, 12], "encoder_blocks": [1, 2],
        "decoder_widths": [8, 12], "decoder_blocks": [1, 2],
    },
    "rate": {"levels": 2, "width": 8, "z_channels": 4},
}  # fmt: skip
MORE_LAYERS = {
    "encoder_widths": [8, 12, 10],
    "encoder_blocks": [1, 3, 1],
    "decoder_widths": [8, 12, 10],
    "decoder_blocks": [2, 3, 2],
}


def network(**model) -> CompressibleAutoencoder:
    net = CompressibleAutoencoder(parse(AutoencoderConfig, merge(SMALL, {"model": model}))).eval()
    net.init_from([to_tensor(photo(64, 48, seed))[0] * 2 - 1 for seed in range(4)], net_rate())
    return net


def net_rate():
    return parse(AutoencoderConfig, SMALL).rate


def trained_network() -> CompressibleAutoencoder:
    torch.manual_seed(3)
    net = network()
    for parameter in net.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return net


def test_more_layers_alone_leave_the_function_as_it_was():
    small, large = trained_network(), network(**MORE_LAYERS)
    large.load_state_dict(grow(small.state_dict(), large.state_dict()))
    odd = to_tensor(photo(72, 40, 9))  # latent positions in both directions; a level needs multiples of 4
    for pictures, level in ((odd, None), (to_tensor(photo(64, 96, 9)), 1)):
        torch.manual_seed(1)
        expected, expected_bpp = small(pictures, level)
        torch.manual_seed(1)
        decoded, bpp = large(pictures, level)
        assert torch.allclose(decoded, expected, atol=1e-5)
        assert bpp.item() == pytest.approx(expected_bpp.item(), rel=1e-4)


def test_new_channels_add_detail_and_the_old_ones_keep_their_latents():
    small, large = network(), network(channels=12)
    large.load_state_dict(grow(small.state_dict(), large.state_dict()))
    pictures = to_tensor(photo(64, 48, 9))
    latents = large.net.encoder(pictures * 2 - 1)
    assert torch.allclose(latents[:, :6], small.net.encoder(pictures * 2 - 1), atol=1e-5)
    errors = [((net(pictures, None)[0] - pictures) ** 2).mean().item() for net in (small, large)]
    assert errors[1] < 0.9 * errors[0]


def test_means_and_scales_grow_each_by_itself():
    small, large = trained_network(), network(channels=12)
    state = grow(small.state_dict(), large.state_dict())
    head = small.state_dict()["hyper.head.bias"]
    assert torch.equal(state["hyper.head.bias"][:6], head[:6])
    assert torch.equal(state["hyper.head.bias"][12:18], head[6:])


def test_new_channels_are_quantised_as_the_last_old_one():
    small, large = trained_network(), network(channels=12)
    gains = grow(small.state_dict(), large.state_dict())["log_gain"]
    assert torch.equal(gains[:, :6], small.log_gain)
    assert torch.equal(gains[:, 6:], small.log_gain[:, 5:].expand(-1, 6))


def test_larger_weights_are_refused_in_words():
    with pytest.raises(ConfigError, match="larger than the configuration"):
        grow(network(channels=12).state_dict(), network().state_dict())
