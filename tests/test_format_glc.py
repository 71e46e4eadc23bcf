"""docs/format.md is enough for a second decoder of glc: this one, in numpy's integers alone, from file to symbols."""

from __future__ import annotations

import json
import zlib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from test_format import SecondDecoder
from test_golden import EXPECTED, FILES, GOLDEN

from live.container import unpack

PLACES = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2))
LIMIT = 1 << 20


class Networks:
    """The section "Exact arithmetic"; activations are (channels, rows, columns) int64."""

    def __init__(self, tensors: dict[str, np.ndarray]):
        self.tensors = tensors

    def convolved(self, x: np.ndarray, name: str, groups: int = 1) -> np.ndarray:
        stored = self.tensors[f"{name}.weight"].astype(np.float64)
        bias = self.tensors.get(f"{name}.bias", np.zeros(len(stored))).astype(np.float64)
        bits = min(40, 15 - np.frexp(np.abs(stored).max())[1])
        weight = np.floor(stored * 2.0**bits + 0.5).astype(np.int64)
        offset = np.floor(bias * 2.0 ** (bits + 10) + 0.5).astype(np.int64)
        rows, columns, reach = *x.shape[1:], weight.shape[2] // 2
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
        result = np.zeros((len(weight), rows, columns), np.int64) + offset[:, None, None]
        for group, (kernel, seen) in enumerate(zip(np.split(weight, groups), np.split(padded, groups), strict=True)):
            place = slice(group * len(kernel), (group + 1) * len(kernel))
            for row, column in np.ndindex(*weight.shape[2:]):
                window = seen[:, row : row + rows, column : column + columns]
                result[place] += np.einsum("oi,irc->orc", kernel[:, :, row, column], window)
        return np.clip((result + (1 << bits - 1)) >> bits, -LIMIT, LIMIT)

    def depth_block(self, x: np.ndarray, prefix: str) -> np.ndarray:
        branch = leaky(self.convolved(x, f"{prefix}.0.branch.0"), 328)
        branch = self.convolved(branch, f"{prefix}.0.branch.2", len(x))
        branch = self.convolved(branch, f"{prefix}.0.branch.3")
        same = len(branch) == len(x)
        d = clipped(branch + (x if same else self.convolved(x, f"{prefix}.0.adaptor.0")))
        a, b = np.split(self.convolved(d, f"{prefix}.1.first"), 2)
        product = clipped((a * leaky(b, 3277) + 512) >> 10)
        return clipped(d + self.convolved(product, f"{prefix}.1.last"))

    def up_block(self, x: np.ndarray, prefix: str) -> np.ndarray:
        branch = leaky(shuffled(self.convolved(x, f"{prefix}.branch.0.0")), 328)
        branch = leaky(self.convolved(branch, f"{prefix}.branch.2"), 3277)
        return clipped(branch + shuffled(self.convolved(x, f"{prefix}.skip.0")))

    def fused(self, z_hat: np.ndarray) -> np.ndarray:
        x = self.up_block(self.up_block(z_hat, "prior.h_s.0"), "prior.h_s.1")
        for name in ("prior.h_s.2", "prior.fusion.0", "prior.fusion.1"):
            x = self.depth_block(x, name)
        return x

    def context(self, number: int, u: np.ndarray, reduced: np.ndarray, blocks: int) -> np.ndarray:
        x = self.depth_block(np.concatenate([clipped(16 * u), reduced]), f"prior.adaptors.{number - 1}")
        for block in range(blocks):
            x = self.depth_block(x, f"prior.spatial.{block}")
        return x


def clipped(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -LIMIT, LIMIT)


def leaky(x: np.ndarray, slope: int) -> np.ndarray:
    return np.where(x < 0, (x * slope + (1 << 14)) >> 15, x)


def shuffled(x: np.ndarray, side: int = 2) -> np.ndarray:
    channels, rows, columns = len(x) // side**2, *x.shape[1:]
    parts = x.reshape(channels, side, side, rows, columns).transpose(0, 3, 1, 4, 2)
    return parts.reshape(channels, side * rows, side * columns)


def selecting(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the last layers give -> means in units of 1/64, and rows."""
    means, indices = np.split(raw, 2)
    return (means + 8) >> 4, np.clip((indices + 512) >> 10, 0, 63)


def entries_of(codebook: np.ndarray) -> np.ndarray:
    return clipped(np.floor(1024 * codebook.astype(np.float64) + 0.5).astype(np.int64))


class Symbols:
    """Read one stream's symbols under the tables of a checkpoint; ``seen``: all of them, in coding order."""

    def __init__(self, stream: bytes, tensors: dict[str, np.ndarray]):
        self.decoder, self.tensors, self.seen = SecondDecoder(stream), tensors, []

    def read(self, indices: np.ndarray, table: str) -> np.ndarray:
        cdfs, sizes, offsets = (
            self.tensors[f"tables.{table}.{part}"].tolist() for part in ("cdfs", "sizes", "offsets")
        )
        self.seen += [self.decoder.symbol(cdfs[row], sizes[row], offsets[row]) for row in indices.ravel().tolist()]
        return np.array(self.seen[len(self.seen) - indices.size :]).reshape(indices.shape)

    def read_z(self, channels: int, rows: int, columns: int) -> np.ndarray:
        """Of channels under rows of their own, as activations."""
        return clipped(
            1024 * self.read(np.broadcast_to(np.arange(channels)[:, None, None], (channels, rows, columns)), "z")
        )


def opened(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """A checkpoint's tensors and its card."""
    with safe_open(str(path), framework="np") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - a handle, not a dict
        return tensors, json.loads(file.metadata()["live_card"])


def glc_frame(
    symbols: Symbols, networks: Networks, config: dict, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """u in units of 1/64 and its steps in units of 1/1024, of rows x columns positions of z."""
    n = config["channels"]
    if config["codebook"]:
        numbers = symbols.read(np.zeros((rows, columns), int), "z").clip(0, config["codebook"] - 1)
        z_hat = entries_of(networks.tensors["prior.categorical.codebook"])[numbers].transpose(2, 0, 1)
    else:
        z_hat = symbols.read_z(n, rows, columns)
    fused = networks.fused(z_hat)
    reduced, predicted = networks.convolved(fused, "prior.reduction"), fused[n:]
    u = np.zeros((n, 4 * rows, 4 * columns), np.int64)
    for number in range(4):
        if number:
            predicted = networks.context(number, u, reduced, config["blocks"])
        means, indices = selecting(predicted)
        places = [(slice(c, c + 1), *offsets(PLACES[number][4 * c // n])) for c in range(n)]
        decoded = symbols.read(np.concatenate([indices[place] for place in places]), "y")
        for c, place in enumerate(places):
            u[place] = 64 * decoded[c] + means[place]
    return u, fused[:n].clip(512)


def symbols_of(name: str) -> np.ndarray:
    """Every symbol of a golden file, in coding order."""
    checkpoint, picture = FILES[name]
    tensors, card = opened(GOLDEN / f"{checkpoint}.safetensors")
    file = unpack((GOLDEN / f"{name}.live").read_bytes())
    factor = 16 * 4 if picture else 4
    symbols = Symbols(file.stream, tensors)
    glc_frame(symbols, Networks(tensors), card["config"], -(-file.height // factor), -(-file.width // factor))
    return np.array(symbols.seen)


def offsets(place: int) -> tuple[slice, slice]:
    return slice(place // 2, None, 2), slice(place % 2, None, 2)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("glc")])
def test_a_second_decoder_reads_the_symbols_of_glc(name):
    symbols = symbols_of(name).astype("<i4").tobytes()
    assert zlib.crc32(symbols) == unpack((GOLDEN / f"{name}.live").read_bytes()).symbols_crc
    assert sha256(symbols).hexdigest() == json.loads(EXPECTED.read_text())[name]["symbols"]
