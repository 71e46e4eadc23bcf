"""``python -m testing.fuzz``: damaged and hostile files by the ten thousand, and what became of each.

    python -m testing.fuzz --count 100000 --json > results/fuzz.json

Three layers: the container (bytes -> fields), the coder (stream -> symbols) and the codec (file -> picture, everything).
Half of the altered files carry a right checksum, so that what lies behind it is reached. Every trial runs in a process
apart, with limits of memory and time, and is made from the seed and its number alone. Exit code 1: something failed.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from live.command import Parser, run
from live.container import LiveFile, pack, unpack
from live.errors import LiveError

from .isolated import CRASH, HANG, NO_MEMORY, Isolated
from .mutations import TELLING, lie, mutate, rechecked

if TYPE_CHECKING:
    import numpy as np

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
"""Small files and small models: what is under attack is the reading, not the picture."""
SHARES = {"container": 0.4, "coder": 0.25, "codec": 0.35}
SECONDS, MEMORY = 20.0, 2 << 30
"""Limits of one trial: seconds of CPU time, and bytes beyond the loaded models."""
SAME, OTHER_FILE = "identical", "another valid file"
OTHER_CLAIM = "same symbols, another size, quality or model"
SILENT = "silently wrong"
FAILURES = (CRASH, HANG, NO_MEMORY, SILENT)


def golden_files() -> dict[str, bytes]:
    """The golden files by name."""
    return {path.stem: path.read_bytes() for path in sorted(GOLDEN.glob("*.live"))}


@dataclass
class _Trial:
    """One layer's trials; ``self.random`` is of the seed and the number alone."""

    seed: int

    def prepare(self) -> None:
        self.files = golden_files()

    def __call__(self, number: int) -> str:
        self.random = Random(f"{self.seed} {type(self).__name__} {number}")
        try:
            return self.attempt()
        except LiveError as error:
            return type(error).__name__

    def attempt(self) -> str:
        raise NotImplementedError


class Container(_Trial):
    """Bytes -> fields. Without a right checksum nothing but the same bytes may pass."""

    def attempt(self) -> str:
        original = self.random.choice(list(self.files.values()))
        data = mutate(original, self.random)
        if self.random.random() < 0.1:
            data = original[: self.random.choice((3, 4, 18))] + self.random.randbytes(self.random.randrange(80))
        repaired = self.random.random() < 0.5 and len(data) >= 4
        data = rechecked(data) if repaired else data
        file = unpack(data)
        if data == original:
            return SAME
        return OTHER_FILE if repaired and unpack(pack(file)) == file else SILENT


class Coder(_Trial):
    """Stream -> symbols, under the golden models' tables. Within bounds, or refused."""

    def prepare(self) -> None:
        super().prepare()
        use_golden_models()
        from live.checkpoints import embedded_checkpoints, load_codec

        codecs = [load_codec(checkpoint.path) for checkpoint in embedded_checkpoints()]
        self.tables = [tables for codec in codecs for tables in codec.tables.values()]

    def attempt(self) -> str:
        import numpy as np

        from live.coder import SYMBOL_LIMIT, Read, Write

        draw, tables = np.random.default_rng(self.random.getrandbits(64)), self.random.choice(self.tables)
        count = int(2 ** draw.uniform(0, 12))
        indices = draw.integers(0, len(tables.sizes), count).astype(np.int32)
        middle = tables.offsets[indices] + tables.sizes[indices] // 2
        symbols = np.rint(middle + draw.normal(size=count) * tables.sizes[indices] / 8).astype(np.int32)
        outliers = draw.integers(0, count, self.random.choice((0, 0, 1, 20)))
        symbols[outliers] = draw.integers(-SYMBOL_LIMIT, SYMBOL_LIMIT, len(outliers))
        write = Write()
        write.code(symbols, indices, tables)
        read = Read(self._altered(write.stream()), count)
        if self.random.random() < 0.2:  # rows follow from the symbols before: a hostile stream chooses them too
            indices[count // 2 :] = draw.integers(0, len(tables.sizes), count - count // 2)
        parts = np.array_split(indices, self.random.choice((1, 3)))
        decoded = np.concatenate([read.code(None, part, tables) for part in parts])
        if len(decoded) != count or (abs(decoded.astype(np.int64)) > SYMBOL_LIMIT).any():
            return SILENT
        if read.crc != write.crc:
            return "DecodeMismatch"
        return SAME if (decoded == symbols).all() else SILENT

    def _altered(self, stream: bytes) -> bytes:
        kind = self.random.random()
        if kind < 0.1:
            return self.random.randbytes(self.random.randrange(200))
        if kind < 0.2:
            return stream[: self.random.randrange(len(stream) + 1)] + bytes([self.random.choice(TELLING)]) * 400
        return mutate(stream, self.random)


class Codec(_Trial):
    """A whole file -> picture or latents, by the library's front door."""

    def prepare(self) -> None:
        super().prepare()
        use_golden_models()
        import torch

        torch.set_num_threads(1)
        self.fields = {name: unpack(data) for name, data in self.files.items()}
        self.decoded = {name: decoded(data) for name, data in self.files.items()}
        self.symbols = {name: symbols_of(file)[0] for name, file in self.fields.items()}

    def attempt(self) -> str:
        name = self.random.choice(list(self.files))
        kind = self.random.random()
        if kind < 0.1:
            data = mutate(self.files[name], self.random)
        elif kind < 0.3:
            data = rechecked(mutate(self.files[name], self.random).ljust(4, b"\0"))
        else:
            data = lie(self.fields[name], list(self.fields.values()), self.random)
        forged = self.random.random() < 0.2
        if forged:  # the symbols' checksum too: a file that somebody made, up to the autoencoder's decoder
            file = unpack(data)
            data = pack(replace(file, symbols_crc=symbols_of(file)[1]))
        result = decoded(data)
        if result == self.decoded[name]:
            return SAME
        if forged:
            return OTHER_FILE
        file = unpack(data)
        claims, original = ((f.width, f.height, f.quality, f.model) for f in (file, self.fields[name]))
        if symbols_of(file)[0] == self.symbols[name] and claims != original:
            return OTHER_CLAIM
        return OTHER_FILE if data in self.files.values() else SILENT


def use_golden_models() -> None:
    os.environ["LIVE_CHECKPOINTS"] = str(GOLDEN)


def decoded(data: bytes) -> bytes:
    """What a file decodes to, its size included, as comparable bytes."""
    import live

    if unpack(data).latents:
        latents = live.decompress_latents(data)
        return repr(tuple(latents.shape)).encode() + latents.numpy().tobytes()
    picture = live.decompress(data)
    return repr(picture.size).encode() + picture.tobytes()


def symbols_of(file: LiveFile) -> tuple[bytes, int]:
    """A file's symbols in coding order, as bytes, and their CRC-32, whatever the file says of it."""
    from live.checkpoints import by_identity, load_codec
    from live.coder import Read

    seen: list[np.ndarray] = []

    class Recording(Read):
        def code(self, symbols: Any, indices: Any, tables: Any) -> np.ndarray:
            seen.append(super().code(symbols, indices, tables))
            return seen[-1]

    codec = load_codec(by_identity(file.model).path)
    factor = 1 if file.latents else codec.card["factor"]
    height, width = -(-file.height // factor), -(-file.width // factor)
    port = Recording(file.stream, codec.symbol_count(*codec.padded(height, width)))
    codec.decode(port, height, width)
    return b"".join(part.tobytes() for part in seen), port.crc


LAYERS: dict[str, type[_Trial]] = {"container": Container, "coder": Coder, "codec": Codec}


def campaign(count: int, seed: int) -> dict[str, Any]:
    """``count`` trials over the layers: how many ended how, the longest and largest, and every failure."""
    table: dict[str, Any] = {"count": 0, "seed": seed, "seconds_limit": SECONDS, "memory_limit_mb": MEMORY >> 20}
    table |= {"layers": {}, "failures": []}
    with tqdm(total=count, unit="file") as progress:
        for layer, share in SHARES.items():
            outcomes, cpu_s, extra_mb = Counter(), 0.0, 0.0
            with Isolated(LAYERS[layer](seed), SECONDS, MEMORY) as isolated:
                for number in range(round(count * share)):
                    result = isolated.run(number)
                    outcomes[result.outcome] += 1
                    cpu_s, extra_mb = max(cpu_s, result.cpu_s), max(extra_mb, result.extra_mb)
                    if result.outcome in FAILURES:
                        failure = {"layer": layer, "number": number, "outcome": result.outcome, "detail": result.detail}
                        table["failures"].append(failure)
                    progress.update()
            table["count"] += outcomes.total()
            largest = {"longest_cpu_s": round(cpu_s, 2), "extra_memory_mb": round(extra_mb)}
            table["layers"][layer] = {"outcomes": dict(outcomes.most_common()), **largest}
    return table


def text(table: dict[str, Any]) -> str:
    """A campaign's table to read, as Markdown, then its failures."""
    lines = ["| outcome | " + " | ".join(LAYERS) + " |", "|---|" + "---:|" * len(LAYERS)]
    found = [table["layers"][layer]["outcomes"] for layer in LAYERS]
    names = sorted(set().union(*found) - set(FAILURES)) + list(FAILURES)
    lines += [f"| {name} | " + " | ".join(str(outcomes.get(name, 0)) for outcomes in found) + " |" for name in names]
    for failure in table["failures"]:
        lines.append(f"{failure['layer']} {failure['number']}: {failure['outcome']} {failure['detail']}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code, 1 when a trial crashed, hung, ran out of memory or was silently wrong."""
    parser = Parser(
        prog="python -m testing.fuzz", description="Decode damaged and hostile files; count what becomes of them."
    )
    parser.add_argument("--count", type=int, default=2000, help="files in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args(argv)
    table = campaign(args.count, args.seed)
    print(json.dumps(table, indent=1) if args.json else text(table))
    return int(bool(table["failures"]))


if __name__ == "__main__":
    raise SystemExit(run(main))
