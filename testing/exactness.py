"""What integer arithmetic costs in rate: the same latents under entropy networks in integers and in floating point.

python -m testing.exactness [--data DIR] [--limit N] [--json]

For every embedded quality: the bits that the tables charge when the checkpoint's own networks select rows and means in
floating point, in sums below 2^53, and in the arithmetic that the checkpoint is decoded with. Of the codecs of clips
these are the bits of predicted frames, of a short clip for every photo: a window that moves over it. ``glc``: see
testing.glc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from live import api
from live.checkpoints import embedded_checkpoints, load_codec
from live.codecs.base import Codec
from live.coder import Count
from live.command import run
from live.media import read_picture
from live.pictures import encode_picture
from live.priors.hyper import ExactHyperprior
from live.video.codec import ClipCodec

from .clip_codecs import CLIP_OURS
from .float_twins import FloatHyperprior, FloatTemporal, FloatTwoPass, in_floats
from .over_photos import answer

FRAMES, STEP = 5, (4, 2)
"""Frames of a clip, the first an intra frame, and how many pixels to the right and down the window moves a frame."""
Networks = Callable[[Any], object]


class Kind(NamedTuple):
    """place: the attribute in which a codec keeps its integer networks; floats and wide: what makes of a codec the same
    networks in floating point and in sums below 2^53, None where its own are that."""

    place: str
    floats: Networks
    wide: Networks | None = None


KINDS = {
    "live_plus": Kind("_exact_hyper", lambda codec: FloatHyperprior(codec.hyper), lambda c: ExactHyperprior(c.hyper)),
    "live_paper": Kind("_exact_h_s", lambda codec: in_floats(codec.h_s)),
    "live_video": Kind("_exact", lambda codec: FloatTemporal(codec.temporal)),
    "glc_video": Kind("_exact", lambda codec: FloatTwoPass(codec.prior)),
}


def bits_with(codec: Codec, place: str, networks: object, clips: list[list[Tensor]]) -> float:
    """Bits of all latents (1, c, h, w) when ``networks`` select rows and means in the place of the codec's own twin; of a
    codec of clips without the first of each clip, the intra frames."""
    own, port = getattr(codec, place), Count()
    vars(codec)[place] = networks
    try:
        for frames in clips:
            if isinstance(codec, ClipCodec):
                state = codec.encode(Count(), frames[0], None)
                for frame in frames[1:]:
                    state = codec.encode(port, frame, state)
            else:
                codec.encode(port, frames[0])
    finally:
        vars(codec)[place] = own
    return port.bits


def at_qualities(name: str) -> Iterator[tuple[float, Codec]]:
    """The embedded codecs of a name with their qualities, ascending; none where none are embedded."""
    for checkpoint in embedded_checkpoints():
        if checkpoint.card["codec"] == name:
            codec = load_codec(checkpoint.path)
            codec.make_exact()
            if isinstance(codec, ClipCodec):
                yield from ((quality, codec.at(quality)) for quality in CLIP_OURS[name].settings)
            else:
                yield checkpoint.card["quality"], codec


def window(photo: Image.Image) -> list[Image.Image]:
    """A clip of a photo."""
    width, height = (side - (FRAMES - 1) * step for side, step in zip(photo.size, STEP, strict=True))
    corners = ((number * STEP[0], number * STEP[1]) for number in range(FRAMES))
    return [photo.crop((left, top, left + width, top + height)) for left, top in corners]


def measure(files: list[Path]) -> list[dict[str, object]]:
    """One row a codec and quality: bits in floating point and, in percent over them, in either arithmetic."""
    rows: list[dict[str, object]] = []
    for name, kind in KINDS.items():
        clips: list[list[Tensor]] = []
        for quality, codec in tqdm(at_qualities(name), desc=name, unit="quality"):
            autoencoder = api._autoencoder(codec, None)
            for photo in map(read_picture, () if clips else files):
                frames = window(photo) if isinstance(codec, ClipCodec) else [photo]
                clips.append([encode_picture(autoencoder, frame)[0] for frame in frames])
            base = bits_with(codec, kind.place, kind.floats(codec), clips)
            own = bits_with(codec, kind.place, getattr(codec, kind.place), clips)
            assert kind.wide or codec.card.get("arithmetic", "float64") == "float64"  # its own is that then
            wide = bits_with(codec, kind.place, kind.wide(codec), clips) if kind.wide else own
            rows.append({
                "codec": name,
                "quality": quality,
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
        "| codec | quality | arithmetic | bits in floating point | in sums below 2^53 | as decoded |",
        "|---|---:|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['codec']} | {row['quality']:g} | {row['arithmetic']} | {row['float_bits']} "
        f"| {row['float64_percent']:+.3f} % | {row['own_percent']:+.3f} % |"
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return answer(argv, "exactness", __doc__.splitlines()[0], measure, table)


if __name__ == "__main__":
    raise SystemExit(run(main))
