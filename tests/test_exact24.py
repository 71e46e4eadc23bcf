"""The float32 integer arithmetic: Python's integers, proved below 2^24, near the floats that it stands for."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from conftest import SMALL_PLUS, perturb
from safetensors.torch import load_file
from torch import nn
from torch.overrides import TorchFunctionMode

import live
from live.artefact import read_artefact, write_artefact
from live.checkpoints import codec_at, conventions_of, export_codec, load_codec
from live.codecs.plus import LivePlus
from live.coder import Count, Read, Write
from live.errors import LiveError, ModelError
from live.latents.base import identity_of
from live.priors.exact24 import LARGEST_SUM, LIMIT, Conv24, choose_bits, fixed_weights, largest_sum
from live.priors.hyper import anchor_mask, half
from live.priors.hyper24 import Hyper24, layers_of

CARD = {"quality": 1, "autoencoder": None, "autoencoder_name": None}


def trained():
    torch.manual_seed(4)
    codec = LivePlus(SMALL_PLUS)
    perturb(codec, 5)
    return codec.eval()


@pytest.fixture
def codec():
    codec = trained()
    codec.build_tables()
    return codec


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("signed", [False, True])
def test_a_convolution_is_pythons_integer_arithmetic(kernel, signed):
    torch.manual_seed(1)
    layer = nn.Conv2d(3, 4, kernel, 1, kernel // 2)
    weight, bias = layer.weight.detach().flatten(2), layer.bias.detach()
    inputs, outputs = torch.tensor([8, 9, 10]), torch.tensor([6, 7, 8, 9])
    bits = choose_bits(weight, bias, inputs, signed, LIMIT)
    whole, offset = (values.long() for values in fixed_weights(weight, bias, inputs, bits))
    x = torch.randint(-LIMIT if signed else 0, LIMIT + 1, (2, 5, 6, 3))
    y = Conv24(weight, bias, inputs, bits, outputs, signed)(x.float())
    padded = torch.nn.functional.pad(x, (0, 0, *(kernel // 2,) * 4))
    for picture, row, column, channel in itertools.product(range(2), range(5), range(6), range(4)):
        window = padded[picture, row : row + kernel, column : column + kernel].reshape(-1, 3)
        total = int((window * whole[channel].T).sum() + offset[channel])
        expected = math.floor(total / 2 ** int(bits[channel] - outputs[channel]) + 0.5)
        assert int(y[picture, row, column, channel]) == max(0, min(LIMIT, expected))
    assert whole.abs().max() > 1 << 8, "the weights use the bits that the proof allows"
    real = torch.relu(layer((x / 2.0**inputs).permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    fits = y < LIMIT
    assert fits.float().mean() > 0.5 and ((y / 2.0**outputs - real).abs()[fits] < 0.02).all()


def test_no_input_reaches_the_bound(codec):
    """Activations chosen to make every sum as large as it can be stay below 2^24, and one bit more would not."""
    weight, bias, inputs = torch.randn(8, 96, 9), torch.randn(8), torch.full((96,), 8)
    bits = choose_bits(weight, bias, inputs, False, LIMIT)
    whole, offset = fixed_weights(weight, bias, inputs, bits)
    worst = (whole.clamp(min=0) * LIMIT).sum((1, 2)) + offset
    assert (worst < LARGEST_SUM).all() and (largest_sum(whole, offset, False, LIMIT) >= worst).all()
    finer = largest_sum(*fixed_weights(weight, bias, inputs, bits + 1), False, LIMIT)
    assert (finer > LARGEST_SUM * 0.9).all()
    with pytest.raises(ModelError, match="out of range"):
        Conv24(weight, bias, inputs, bits + 1, torch.full((8,), 8))
    with pytest.raises(ModelError, match="too large"):
        choose_bits(weight * math.inf, bias, inputs, False, LIMIT)


def test_it_stays_near_the_float_network(codec):
    twin, z = codec._exact_hyper, torch.randint(-3, 4, (2, 4, 6, 5))
    assert isinstance(twin, Hyper24)
    y = torch.where(anchor_mask(24, 20), torch.randint(-200, 200, (2, 4, 24, 20), dtype=torch.int32), 0)
    with torch.no_grad():
        features = codec.hyper.features(z.float())
        for known in (None, y):
            real = None if known is None else known / 64
            means, indices = (half(v, known is None) for v in codec.hyper.parameters_of(features, real))
            exact_means, rows = twin.parameters_of(twin.features(z), known)
            assert (exact_means / 64 - means).abs().max() < 0.03
            assert (rows - indices).abs().max() < 0.7


def test_it_costs_next_to_nothing(codec):
    """The same latents in either arithmetic, bits by the tables."""
    x = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(6))
    counts = []
    for units in (codec.units, {}):
        codec.units = units
        codec.__dict__.pop("_exact_hyper", None)
        counts.append(Count())
        codec.encode(counts[-1], x)
    assert abs(counts[0].bits / counts[1].bits - 1) < 0.005


class ShortProducts(TorchFunctionMode):
    """Multiplies matrices of float32 in bfloat16, as processors with such units do where the process allows it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in ("addmm", "addmm_", "mm", "matmul", "bmm", "baddbmm", "baddbmm_"):
            args = (
                args[0],
                *(value.bfloat16().float() if value.dtype == torch.float32 else value for value in args[1:]),
            )
        return function(*args, **(kwargs or {}))


@pytest.fixture
def medium_precision():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def coded():
    latents = torch.randn(1, 32, 24, 32, generator=torch.Generator().manual_seed(3)) * 2
    data = live.compress_latents(latents, 4, codec="live_plus")
    return data, live.decompress_latents(data)


def test_products_in_shorter_floats_change_no_symbol(coded, medium_precision):
    data, latents = coded
    with ShortProducts():
        assert (live.decompress_latents(data) - latents).abs().max() < 1  # what follows the symbols may be rounded


def test_shorter_floats_would_change_symbols(coded):
    """Else the test above could not fail: unless the process says that it allows them, nothing is done about them."""
    with ShortProducts(), pytest.raises(LiveError):
        live.decompress_latents(coded[0])


def test_checkpoints_state_their_arithmetic(codec, tmp_path):
    path = tmp_path / "codec.safetensors"
    exported = export_codec(codec, path, CARD)
    assert exported.card["arithmetic"] == "int24" and isinstance(exported._exact_hyper, Hyper24)
    assert {"units.y.fractions", "units.head.bits"} <= set(load_file(path))
    assert "arithmetic" not in json.loads(conventions_of({"codec": "live_plus"})), "older identities stand"

    tensors, card = read_artefact(path, "codec")
    with pytest.raises(ModelError, match="int48"):
        rewrite(path, tensors, card | {"arithmetic": "int48"})
    with pytest.raises(ModelError, match="does not hold the weights"):
        rewrite(path, tensors, {key: value for key, value in card.items() if key != "arithmetic"})
    with pytest.raises(ModelError, match="units"):
        rewrite(path, {k: v for k, v in tensors.items() if k != "units.head.bits"}, card)
    with pytest.raises(ModelError, match="out of range"):
        rewrite(path, tensors | {"units.head.bits": torch.full_like(tensors["units.head.bits"], 60)}, card)


def rewrite(path, tensors, card):
    write_artefact(path, tensors, card | {"identity": identity_of(tensors, conventions_of(card))})
    codec_at.cache_clear()
    load_codec(path)


def test_units_are_chosen_alike_every_time(codec):
    again = trained()
    again.build_tables()
    assert {k: v.tolist() for k, v in again.units.items()} == {k: v.tolist() for k, v in codec.units.items()}
    assert all(torch.equal(weight, codec.state_dict()[name]) for name, weight in again.state_dict().items())


def test_rounded_weights_shift_nothing_on_average(codec):
    """Against the floats before they were rounded; the integers of these, with biases as they were, stand for what is gained."""
    before, units = trained().hyper, codec.units
    z = codec.tables["z"].draw((16, 12, 12), torch.Generator().manual_seed(8))
    units_of_features = 2.0 ** units["features.fractions"].float().reshape(1, -1, 1, 1)
    shifts = []
    with torch.no_grad():
        for hyper in (codec.hyper, before):
            off = Hyper24(hyper, units).features(z) / units_of_features - before.features(z)
            shifts.append(off.mean((0, 2, 3)).abs().mean().item())
    assert shifts[0] < shifts[1] / 3


def test_stored_weights_are_their_integers(codec, tmp_path):
    """So the network in floating point, which training would go on from, is the one that decodes."""
    exported = export_codec(codec, tmp_path / "codec.safetensors", CARD)
    for layer in layers_of(exported.hyper).values():
        assert torch.equal(layer.rounded(exported.units), layer.conv.weight)


def test_clamped_extremes_still_decode(codec):
    """Latents far outside of what units were chosen for cost bits and lose nothing."""
    x = 40 * torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(8))
    writer = Write()
    coded = codec.encode(writer, x)
    reader = Read(writer.stream(), codec.symbol_count(16, 16))
    assert torch.equal(codec.reconstruct(coded), codec.decode(reader, 16, 16))
    assert reader.crc == writer.crc and coded.abs().max() > 64 * LIMIT / 16


@pytest.mark.parametrize("size", [(4, 4), (4, 20), (20, 4)])
def test_thin_latents_pass_as_they_were_written(codec, tmp_path, size):
    exported = export_codec(codec, tmp_path / "codec.safetensors", CARD)
    assert exported.card["arithmetic"] == "int24"
    latents = torch.randn(1, exported.channels, *size)
    write = Write()
    expected = exported.encode(write, latents)
    decoded = exported.decode(Read(write.stream(), exported.symbol_count(*size)), *size)
    assert torch.equal(decoded, exported.reconstruct(expected)[:, :, : size[0], : size[1]] / exported._scale)
