"""The entropy networks are integer arithmetic: exact against Python's own integers, and deaf to how floats are summed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from conftest import SMALL_GLC, SMALL_PLUS, perturb
from torch import nn

from live.codecs.glc import Glc
from live.codecs.paper import SCALES, THRESHOLDS, LivePaper, PaperConfig
from live.codecs.plus import LivePlus
from live.coder import Count, Read, Write
from live.depthconv import UpsampleBlock, depth_conv_block, gated_block
from live.errors import ModelError
from live.nets import Product, Sum
from live.priors.exact import LIMIT, UNIT, ExactConv, exact_twin, to_fixed
from live.priors.fourpart import LEAST_STEP, ExactFourPart, FourPart
from live.priors.hyper import MEAN_PRECISION, ExactHyperprior, anchor_mask, half


def integers(size, seed=0):
    return torch.randint(-50 * UNIT, 50 * UNIT, size, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "side"), [(2, 3, 1, 3), (4, 6, 2, 3), (3, 3, 3, 3), (5, 3, 1, 1), (3, 3, 3, 1)]
)
def test_a_convolution_is_pythons_integer_arithmetic(stride, inputs, outputs, groups, side):
    torch.manual_seed(1)
    layer = nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups)
    twin, x = ExactConv(layer), integers((1, inputs, 5, 4))
    y = twin(x)
    weight = [[int(w) for w in channel.flatten()] for channel in twin.weight]
    assert max(abs(w) for channel in weight for w in channel) > 1 << 14, "the weights use their bits"
    padded = torch.nn.functional.pad(x, (side // 2,) * 4)[0]
    for channel, row, column in itertools.product(range(outputs), range(y.shape[2]), range(y.shape[3])):
        seen = padded.chunk(groups)[channel // (outputs // groups)]
        window = seen[:, row * stride : row * stride + side, column * stride : column * stride + side]
        total = sum(w * int(v) for w, v in zip(weight[channel], window.flatten(), strict=True)) + int(
            twin.bias[channel]
        )
        expected = (total + (1 << twin.bits - 1)) >> twin.bits
        assert int(y[0, channel, row, column]) == max(-LIMIT, min(LIMIT, expected))
    assert (y / UNIT - layer.double()(x / UNIT)).abs().max() < 0.05


EXTREMES = [
    -LIMIT,
    -LIMIT + 1,
    -1 << 15,
    -1537,
    -1024,
    -512,
    -3,
    -2,
    -1,
    0,
    1,
    2,
    511,
    512,
    513,
    1 << 15,
    LIMIT - 1,
    LIMIT,
]


@pytest.mark.parametrize("slope", [0.01, 0.1])
def test_leaky_relu_is_pythons_integer_arithmetic(slope):
    layer, x = nn.LeakyReLU(slope), torch.cat([torch.tensor(EXTREMES), torch.arange(-9999, 9999, 7)])
    factor = {0.01: 328, 0.1: 3277}[slope]
    y = exact_twin(layer)(x.double())
    assert [int(v) for v in y] == [v if v >= 0 else (v * factor + (1 << 14)) >> 15 for v in x.tolist()]
    assert (y / UNIT - layer(x.double() / UNIT)).abs().max() < 0.03


def test_sum_and_product_are_pythons_integer_arithmetic():
    pairs = list(itertools.product(EXTREMES, EXTREMES))
    x, y = torch.tensor(pairs).double().T
    assert Product()(torch.tensor([40.0, 3.0, -40.0]), torch.tensor([40.0, 2.0, 40.0])).tolist() == [1024, 6, -1024]
    sums, products = exact_twin(Sum())(x, y), exact_twin(Product())(x, y)
    assert [int(v) for v in sums] == [max(-LIMIT, min(LIMIT, a + b)) for a, b in pairs]
    assert [int(v) for v in products] == [max(-LIMIT, min(LIMIT, (a * b + 512) >> 10)) for a, b in pairs]


@pytest.mark.parametrize(
    "block",
    [depth_conv_block(6, 6), depth_conv_block(6, 9), gated_block(6), UpsampleBlock(6)],
    ids=lambda b: str(type(b)),
)
@torch.no_grad()
def test_a_twin_runs_its_blocks_own_code(block):
    """Near the float network, in integers all the way, and apart from it: training the block on changes nothing."""
    perturb(block, 1)
    twin, x = exact_twin(block), (integers((2, 6, 5, 4)) / 20).round()
    y = twin(x)
    assert torch.equal(y, y.round()) and (y / UNIT - block(x.float() / UNIT)).abs().max() < 0.02
    assert not list(twin.parameters()) and type(twin) is type(block)
    for parameter in block.parameters():
        parameter.add_(1)
    assert torch.equal(twin(x), y)


def test_layers_without_a_twin_are_refused():
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.weight = nn.ReLU(), nn.Parameter(torch.ones(1))

    for layer in (nn.GELU(), nn.GroupNorm(1, 2), Weighted(), nn.Sequential(nn.ReLU(), nn.Sigmoid())):
        with pytest.raises(ModelError, match=r"GELU|GroupNorm|Weighted|Sigmoid"):
            exact_twin(layer)
    for layer in (nn.ConvTranspose2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")):
        with pytest.raises(ModelError, match=r"Conv.*without an exact twin"):
            exact_twin(layer)
    for slope in (-0.1, 1.5):
        with pytest.raises(ModelError, match=r"LeakyReLU.*without an exact twin"):
            exact_twin(nn.LeakyReLU(slope))


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


@pytest.mark.parametrize("codebook", [16, 0])
@torch.no_grad()
def test_the_four_part_context_stays_near_the_float_network(codebook):
    """Means and rows of every pass, given the same symbols, and the steps."""
    torch.manual_seed(2)
    model = FourPart(8, codebook, 1).eval()
    perturb(model, 3)
    z = torch.randint(0, 9, (1, 1 if codebook else 8, 3, 2))
    z_hat = model.categorical.entries(z[:, 0]) if codebook else z.float()
    common = model.fusion(model.h_s(z_hat))
    exact = ExactFourPart(model)
    steps, means, rows, reduced = exact.first(z).chunk(4, 1)
    assert (steps / UNIT - common[:, :8].clamp(min=LEAST_STEP)).abs().max() < 0.02 and steps.min() >= 512
    assert steps.max() > 512, "not all steps at their bound"
    u_hat = torch.randint(-200, 200, (1, 8, 12, 8), dtype=torch.int32)
    for number in range(-1, 3):
        if number >= 0:
            means, rows = exact.later(number, torch.cat([u_hat, reduced], 1)).chunk(2, 1)
            seen = torch.cat([u_hat / MEAN_PRECISION, model.reduction(common)], 1)
            expected = model.spatial(model.adaptors[number](seen)).chunk(2, 1)
        else:
            expected = common[:, 8:].chunk(2, 1)
        assert (means / MEAN_PRECISION - expected[0]).abs().max() < 0.02
        assert (rows - expected[1].clamp(0, 63)).abs().max() < 0.6 and rows.unique().numel() > 1


def test_weights_that_could_overflow_are_refused():
    layer = nn.Conv2d(1, 1, 1)
    layer.weight.data.fill_(1e9)
    with pytest.raises(ModelError, match="out of range"):
        ExactConv(layer)


def test_thresholds_are_the_scales_in_fixed_point():
    assert to_fixed(torch.tensor(SCALES[:-1], dtype=torch.float64)).tolist() == list(THRESHOLDS)


@pytest.fixture(params=["plus", "plus in float64", "paper", "glc", "glc, factorised"])
def codec(request):
    torch.manual_seed(4)
    codec = {
        "paper": lambda: LivePaper(PaperConfig()),
        "glc": lambda: Glc(SMALL_GLC),
        "glc, factorised": lambda: Glc(replace(SMALL_GLC, codebook=0)),
    }.get(request.param, lambda: LivePlus(SMALL_PLUS))()
    perturb(codec, 5)
    codec.build_tables()
    if request.param == "plus in float64":  # as checkpoints without units are decoded
        codec.units = {}
    return codec.eval()


def test_symbols_do_not_depend_on_how_floats_are_computed(codec):
    """Written in one setting, read in others: threads, kernels, memory layout; and with floats that were disturbed."""
    x = torch.randn(1, codec.channels, 40, 32, generator=torch.Generator().manual_seed(6))
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
    if isinstance(codec, Glc):
        twin, z = (
            ExactFourPart(codec.prior),
            torch.randint(0, 16, (4, 8 if codec.prior.categorical is None else 1, 5, 6)),
        )
        seen = torch.randint(-9999, 9999, (4, 16, 8, 6), dtype=torch.int32)
        assert torch.equal(twin.first(z), torch.cat([twin.first(one) for one in z.split(1)]))
        assert torch.equal(twin.later(1, seen), torch.cat([twin.later(1, one) for one in seen.split(1)]))
        return
    twin, z = codec._exact_hyper, torch.randint(-9, 9, (4, 4, 5, 6))
    y = torch.where(anchor_mask(20, 24), torch.randint(-999, 999, (4, 4, 20, 24), dtype=torch.int32), 0)
    together = twin.parameters_of(twin.features(z), y)
    alone = [twin.parameters_of(twin.features(a), b) for a, b in zip(z.split(1), y.split(1), strict=True)]
    assert all(torch.equal(a, torch.cat(b)) for a, b in zip(together, zip(*alone, strict=True), strict=True))
