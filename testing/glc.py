"""What the parts of GLC's files cost: the hyper indices by the learned table and at fixed length, and the integers.

python -m testing.glc [--data DIR] [--limit N] [--json]

For every anchor of the embedded ``glc``: bits of y, bits of z's indices as coded, what ceil(log2 K) bits an index would take
(GLC's reference), the share of the whole file that the table saves, and in percent what y costs more in integers than with
the same networks in floating point.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from live import api
from live.checkpoints import by_quality, load_codec
from live.codecs import Glc
from live.coder import Count
from live.command import run
from live.errors import InputError
from live.media import read_picture
from live.pictures import encode_picture
from live.priors.tables import Tables

from .float_twins import FloatFourPart
from .ours import HEADER_BYTES
from .over_photos import answer


class CountParts(Count):
    """Counts the bits under every table apart, in ``parts``, and the symbols in ``symbols``, by the tables' names."""

    def __init__(self, tables: dict[str, Tables]):
        super().__init__()
        self.names = {id(table): name for name, table in tables.items()}
        self.parts, self.symbols = dict.fromkeys(tables, 0.0), dict.fromkeys(tables, 0)

    def code(self, symbols: np.ndarray | None, indices: np.ndarray, tables: Tables) -> np.ndarray:
        before = self.bits
        coded = super().code(symbols, indices, tables)
        self.parts[self.names[id(tables)]] += self.bits - before
        self.symbols[self.names[id(tables)]] += len(coded)
        return coded


def measure(files: list[Path]) -> list[dict[str, float]]:
    """One row an anchor, over all pictures."""
    codec = load_codec(by_quality(None, Glc.name).path)
    assert isinstance(codec, Glc)
    if codec.prior.categorical is None:
        raise InputError("the embedded glc has a factorised hyper module, which has no indices to compare")
    pictures = [read_picture(file) for file in tqdm(files, desc="encode", unit="picture")]
    latents = [encode_picture(api._autoencoder(codec, None), picture)[0] for picture in pictures]
    pixels = sum(picture.width * picture.height for picture in pictures)
    return [_row(codec, quality, latents, pixels) for quality in tqdm(range(codec.highest + 1), unit="quality")]


def _row(codec: Glc, quality: int, latents: list[Tensor], pixels: int) -> dict[str, float]:
    at, port = codec.at(quality), CountParts(codec.tables)
    floats, float_port = codec.at(quality), CountParts(codec.tables)
    floats._exact = FloatFourPart(codec.prior).passes
    for each in latents:
        at.encode(port, each)
        floats.encode(float_port, each)
    entries = len(codec.prior.categorical.codebook)
    fixed = port.symbols["z"] * math.ceil(math.log2(entries))
    whole = port.bits + 8 * HEADER_BYTES * len(latents)
    return {
        "quality": quality,
        "bpp": round(whole / pixels, 5),
        "y_bits": round(port.parts["y"]),
        "z_bits": round(port.parts["z"]),
        "z_fixed_bits": fixed,
        "table_saves_percent": round(100 * (fixed - port.parts["z"]) / (whole - port.parts["z"] + fixed), 3),
        "integers_percent": round(100 * (port.parts["y"] / float_port.parts["y"] - 1), 4),
    }


def table(rows: list[dict[str, float]]) -> str:
    """For people: Markdown."""
    lines = [
        "| quality | bpp | bits of y | bits of z | z at fixed length | the table saves | integers cost |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['quality']} | {row['bpp']:.4f} | {row['y_bits']} | {row['z_bits']} | {row['z_fixed_bits']} "
        f"| {row['table_saves_percent']:.2f} % | {row['integers_percent']:+.3f} % |"
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return answer(argv, "glc", __doc__.splitlines()[0], measure, table)


if __name__ == "__main__":
    raise SystemExit(run(main))
