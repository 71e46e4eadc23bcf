"""What integer arithmetic costs in rate: the same latents under entropy networks in integers and in floating point.

python -m testing.exactness [--data DIR] [--limit N] [--json]

For every embedded quality: the bits that the tables charge when the checkpoint's own networks select rows and means in
floating point, in sums below 2^53, and in the arithmetic that the checkpoint is decoded with.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from live import api
from live.checkpoints import DEFAULT_CODEC, embedded_checkpoints, load_codec
from live.codecs.plus import LivePlus
from live.coder import Count
from live.command import run
from live.media import read_picture
from live.pictures import encode_picture
from live.priors.hyper import MEAN_PRECISION, ExactHyperprior, Hyperprior, half

from .over_photos import answer


class FloatHyperprior:
    """The networks as they were trained, in the shape of ``ExactHyperprior``; means and rows are rounded alike."""

    def __init__(self, hyper: Hyperprior):
        self.hyper = hyper

    def features(self, z: Tensor) -> Tensor:
        return self.hyper.features(z.float())

    def parameters_of(self, features: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        known = None if y is None else y.float() / MEAN_PRECISION
        means, indices = (half(values, y is None) for values in self.hyper.parameters_of(features, known))
        return torch.round(means * MEAN_PRECISION).int(), torch.round(indices).to(torch.uint8)


def bits_with(codec: LivePlus, entropy: object, latents: list[Tensor]) -> float:
    """Bits of all latents (1, c, h, w) when ``entropy`` selects rows and means in the place of the codec's own twin."""
    own, port = codec._exact_hyper, Count()
    codec._exact_hyper = entropy
    try:
        for each in latents:
            codec.encode(port, each)
    finally:
        codec._exact_hyper = own
    return port.bits


def measure(files: list[Path]) -> list[dict[str, object]]:
    """One row a quality: bits in floating point and, in percent over them, in either arithmetic."""
    rows, latents = [], {}
    checkpoints = [c for c in embedded_checkpoints() if c.card["codec"] == DEFAULT_CODEC]
    for checkpoint in tqdm(checkpoints, unit="quality"):
        codec = load_codec(checkpoint.path)
        assert isinstance(codec, LivePlus)
        autoencoder = api._autoencoder(codec, None)
        if not latents:
            latents = [encode_picture(autoencoder, read_picture(file))[0] for file in files]
        base = bits_with(codec, FloatHyperprior(codec.hyper), latents)
        wide = bits_with(codec, ExactHyperprior(codec.hyper), latents)
        own = bits_with(codec, codec._exact_hyper, latents)
        rows.append({
            "quality": checkpoint.card["quality"],
            "checkpoint": codec.identity[:16],
            "arithmetic": codec.card.get("arithmetic", "float64"),
            "float_bits": round(base),
            "float64_percent": round(100 * (wide / base - 1), 4),
            "own_percent": round(100 * (own / base - 1), 4),
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """For people: Markdown."""
    lines = [
        "| quality | arithmetic | bits in floating point | in sums below 2^53 | as decoded |",
        "|---|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['quality']} | {row['arithmetic']} | {row['float_bits']} | {row['float64_percent']:+.3f} % "
        f"| {row['own_percent']:+.3f} % |"
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return answer(argv, "exactness", __doc__.splitlines()[0], measure, table)


if __name__ == "__main__":
    raise SystemExit(run(main))
