"""``python -m testing.autoencoder --vae NAME --data DIR``: an autoencoder's round trip over the pictures of a folder.

Nothing is coded: this is the ceiling of every codec that keeps the autoencoder frozen. Each picture is encoded,
decoded, rounded to 8 bits and scored against the original.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from live.command import Parser, run
from live.errors import InputError
from live.files import picture_files
from live.latents import load_autoencoder
from live.latents.base import Autoencoder
from live.media import read_picture, to_image, to_tensor
from live.metrics.distortion import psnr
from live.metrics.perceptual import dists_network, lpips_network

from .results import METRICS

COLUMNS = ("psnr", "lpips_alex", "dists", "encode_s", "decode_s")


def round_trip(autoencoder: Autoencoder, picture: Tensor) -> tuple[Tensor, float, float]:
    """(1, 3, H, W) in [0, 1] through encode and decode: the 8-bit result (1, 3, H, W), and the seconds of each stage.

    Sizes that are no multiples of the factor are padded by replication and cropped again; this is not timed.
    """
    height, width = picture.shape[2:]
    padded = F.pad(picture, (0, -width % autoencoder.factor, 0, -height % autoencoder.factor), mode="replicate")
    started = time.perf_counter()
    latents = autoencoder.encode(padded)
    encoded = time.perf_counter()
    decoded = autoencoder.decode(latents)
    finished = time.perf_counter()
    return to_tensor(to_image(decoded[:, :, :height, :width])), encoded - started, finished - encoded


@torch.inference_mode()
def score(autoencoder: Autoencoder, path: Path) -> dict[str, Any]:
    """One picture's row: its name, psnr (dB, RGB), lpips_alex, dists (None for pictures too small for them) and seconds."""
    picture = to_tensor(read_picture(path))
    result, encode_s, decode_s = round_trip(autoencoder, picture)
    large = {name: min(picture.shape[2:]) >= METRICS[name].smallest for name in ("lpips_alex", "dists")}
    return {
        "picture": path.name,
        "psnr": psnr(picture, result).item(),
        "lpips_alex": lpips_network()(picture, result).item() if large["lpips_alex"] else None,
        "dists": dists_network()(picture, result).item() if large["dists"] else None,
        "encode_s": encode_s,
        "decode_s": decode_s,
    }


def evaluate(autoencoder: Autoencoder, files: list[Path]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Every picture's row, and the summary: metrics averaged over pictures, median seconds, after one warm-up."""
    round_trip(autoencoder, to_tensor(read_picture(files[0])))
    rows = [score(autoencoder, path) for path in tqdm(files, unit="picture", file=sys.stderr)]
    summary: dict[str, Any] = {name: _mean([row[name] for row in rows]) for name in ("psnr", "lpips_alex", "dists")}
    summary |= {name: statistics.median(row[name] for row in rows) for name in ("encode_s", "decode_s")}
    summary |= {"pictures": len(rows), "threads": torch.get_num_threads()}
    return rows, summary | {"vae": autoencoder.name, "identity": autoencoder.identity}


def _mean(values: list[float | None]) -> float | None:
    """The mean of what is there; None if nothing is, or if it is infinite (a picture came back unchanged)."""
    there = [value for value in values if value is not None]
    mean = sum(there) / len(there) if there else math.inf
    return mean if math.isfinite(mean) else None


def table(rows: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    """Rows and summary as text; N/A where a metric does not apply."""
    lines = [f"{'picture':24}" + "".join(f"{name:>12}" for name in COLUMNS)]
    for row in [*rows, summary | {"picture": "mean; median of seconds"}]:
        cells = ("N/A" if row[name] is None else f"{row[name]:.4f}" for name in COLUMNS)
        lines.append(f"{row['picture'][:24]:24}" + "".join(f"{cell:>12}" for cell in cells))
    facts = (
        f"{summary['vae']} ({summary['identity'][:16]}), {summary['pictures']} pictures, {summary['threads']} threads"
    )
    return "\n".join([*lines, facts])


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        prog="python -m testing.autoencoder", description="Measure what an autoencoder alone keeps of pictures."
    )
    parser.add_argument("--vae", default="compact", metavar="NAME", help="name, folder or hub id (%(default)s)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of pictures")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures, by name")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: torch's choice")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    args = parser.parse_args(argv)
    if any(value is not None and value < 1 for value in (args.limit, args.threads)):
        raise InputError("--limit and --threads must be at least 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    rows, summary = evaluate(load_autoencoder(args.vae), picture_files(args.data)[: args.limit])
    print(json.dumps(summary) if args.json else table(rows, summary))
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
