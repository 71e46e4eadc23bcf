"""The entropy networks are integer arithmetic: exact against Python's own integers, and deaf to how floats are summed."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import SMALL_PLUS, perturb
from torch import nn

from live.codecs.paper import SCALES, THRESHOLDS, LivePaper, PaperConfig
from live.codecs.plus import LivePlus
from live.coder import Count, Read, Write
from live.errors import ModelError
from live.priors.exact import LIMIT, UNIT, ExactConv, exact, to_fixed
from live.priors.hyper import ExactHyperprior, anchor_mask, half


def integers(size, seed=0):
    return torch.randint(-50 * UNIT, 50 * UNIT, size, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_is_pythons_integer_arithmetic(stride):
    torch.manual_seed(1)
    layer = nn.Conv2d(2, 3, 3, stride, 1)
    twin, x = ExactConv(layer), integers((1, 2, 5, 4))
    y = twin(x)
    weight = [[int(w) for w in channel.flatten()] for channel in twin.weight]
    assert max(abs(w) for channel in weight for w in channel) > 1 << 14, "the weights use their bits"
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))[0]
    for channel, row, column in itertools.product(range(3), range(y.shape[2]), range(y.shape[3])):
        window = padded[:, row * stride : row * stride + 3, column * stride : column * stride + 3]
        total = sum(w * int(v) for w, v in zip(weight[channel], window.flatten(), strict=True)) + int(
            twin.bias[channel]
        )
        expected = (total + (1 << twin.bits - 1)) >> twin.bits
        assert int(y[0, channel, row, column]) == max(-LIMIT, min(LIMIT, expected))
    assert (y / UNIT - layer.double()(x / UNIT)).abs().max() < 0.05


def test_it_stays_near_the_float_network():
    torch.manual_seed(2)
    codec = LivePlus(SMALL_PLUS)
    perturb(codec, 3)
    z = torch.randint(-9, 9, (1, 4, 6, 5))
    with torch.no_grad():
        features = codec.hyper.features(z.float())
        twin = ExactHyperprior(codec.hyper)
        assert (twin.features(z) / UNIT - features).abs().max() < 0.01
        y = torch.randint(-200, 200, (1, 4, 24, 20), dtype=torch.int32)
        for known in (None, torch.where(anchor_mask(24, 20), y, 0)):
            real = None if known is None else known / 64
            means, indices = (half(v, known is None) for v in codec.hyper.parameters_of(features, real))
            exact_means, rows = twin.parameters_of(twin.features(z), known)
            assert (exact_means / 64 - means).abs().max() < 0.02
            assert (rows - indices).abs().max() < 0.6


def test_weights_that_could_overflow_are_refused():
    layer = nn.Conv2d(1, 1, 1)
    layer.weight.data.fill_(1e9)
    with pytest.raises(ModelError, match="out of range"):
        ExactConv(layer)
    with pytest.raises(ModelError, match="GELU"):
        exact([nn.GELU()])


def test_thresholds_are_the_scales_in_fixed_point():
    assert to_fixed(torch.tensor(SCALES[:-1], dtype=torch.float64)).tolist() == list(THRESHOLDS)


@pytest.fixture(params=["plus", "plus in float64", "paper"])
def codec(request):
    torch.manual_seed(4)
    codec = LivePaper(PaperConfig()) if request.param == "paper" else LivePlus(SMALL_PLUS)
    perturb(codec, 5)
    codec.build_tables()
    if request.param == "plus in float64":  # as checkpoints without units are decoded
        codec.units = {}
    return codec.eval()


def test_symbols_do_not_depend_on_how_floats_are_computed(codec):
    """Written in one setting, read in others: threads, kernels, memory layout; and with floats that were disturbed."""
    x = torch.randn(1, 4, 40, 32, generator=torch.Generator().manual_seed(6))
    writer, threads = Write(), torch.get_num_threads()
    codec.encode(writer, x)
    stream, counted = writer.stream(), Count()
    codec.encode(counted, x)
    assert counted.crc == writer.crc

    def read() -> int:
        port = Read(stream, codec.symbol_count(40, 32))
        codec.decode(port, 40, 32)
        return port.crc

    try:
        for count, mkldnn in itertools.product((1, 2, 3), (True, False)):
            torch.set_num_threads(count)
            with torch.backends.mkldnn.flags(enabled=mkldnn):
                assert read() == writer.crc
        codec.to(memory_format=torch.channels_last)
        assert read() == writer.crc
        with torch.no_grad():  # the twin is made; the floats that it was made from play no part any more
            for parameter in codec.parameters():
                parameter.mul_(1 + 1e-6)
        assert read() == writer.crc
    finally:
        torch.set_num_threads(threads)


def test_a_batch_decodes_as_its_pictures_do(codec):
    if isinstance(codec, LivePaper):
        twin, z = codec._exact_h_s, integers((4, 24, 5, 6))
        assert torch.equal(twin(z), torch.cat([twin(one) for one in z.split(1)]))
        return
    twin, z = codec._exact_hyper, torch.randint(-9, 9, (4, 4, 5, 6))
    y = torch.where(anchor_mask(20, 24), torch.randint(-999, 999, (4, 4, 20, 24), dtype=torch.int32), 0)
    together = twin.parameters_of(twin.features(z), y)
    alone = [twin.parameters_of(twin.features(a), b) for a, b in zip(z.split(1), y.split(1), strict=True)]
    assert all(torch.equal(a, torch.cat(b)) for a, b in zip(together, zip(*alone, strict=True), strict=True))
