"""What the fuzzer does to pictures' files, and how it judges what becomes of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from live.container import LiveFile, pack, unpack
from live.errors import DecodeMismatch, LiveError

from .mutations import TELLING, lie, mutate, rechecked

if TYPE_CHECKING:
    import numpy as np

    from live.coder import Read

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
"""Small files and small models: what is under attack is the reading, not the picture."""
CLIPS = GOLDEN / "clips"
"""Those of the codecs of clips, apart, so that they are not the default ones."""
SAME, OTHER_FILE = "identical", "another valid file"
OTHER_CLAIM = "same symbols, another size, quality or model"
SILENT = "silently wrong"


def golden_files(folder: Path = GOLDEN) -> dict[str, bytes]:
    """The golden files by name: of pictures and latents, or those in a folder."""
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.live"))}


@dataclass
class Attack:
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


class Container(Attack):
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


class Coder(Attack):
    """Stream -> symbols, under the golden models' tables. Within bounds, or refused."""

    def prepare(self) -> None:
        super().prepare()
        use_golden_models()
        from live.checkpoints import embedded_checkpoints, load_codec

        paths = [checkpoint.path for checkpoint in embedded_checkpoints()]
        codecs = [load_codec(path) for path in (*paths, *sorted(CLIPS.glob("*.safetensors")))]
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


class Codec(Attack):
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
        forged = False
        try:
            result = decoded(data)
        except DecodeMismatch:
            forged = self.random.random() < 0.3
            if not forged:
                raise
            file = unpack(data)  # the symbols' checksum too: a file that somebody made, up to the autoencoder's decoder
            result = decoded(pack(replace(file, symbols_crc=symbols_of(file)[1])))
        if result == self.decoded[name]:
            return SAME
        if forged:
            return OTHER_FILE
        file = unpack(data)
        claims, original = ((f.width, f.height, f.quality, f.model) for f in (file, self.fields[name]))
        if symbols_of(file)[0] == self.symbols[name] and claims != original:
            return OTHER_CLAIM
        return OTHER_FILE if data in self.files.values() else SILENT


class File(Codec):
    """A whole file, altered and left so, by the library's front door: nothing but the same picture or latents may come."""

    def attempt(self) -> str:
        name = self.random.choice(list(self.files))
        return SAME if decoded(mutate(self.files[name], self.random)) == self.decoded[name] else SILENT


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


def recorder(stream: bytes, count: int) -> tuple[Read, list[np.ndarray]]:
    """A port that reads a stream of ``count`` symbols, and where these are put."""
    from live.coder import Read

    seen: list[np.ndarray] = []

    class Recording(Read):
        def code(self, symbols: Any, indices: Any, tables: Any) -> np.ndarray:
            seen.append(super().code(symbols, indices, tables))
            return seen[-1]

    return Recording(stream, count), seen


def symbols_of(file: LiveFile) -> tuple[bytes, int]:
    """A file's symbols in coding order, as bytes, and their CRC-32, whatever the file says of it."""
    from live.checkpoints import by_identity, load_codec

    codec = load_codec(by_identity(file.model).path)
    factor = 1 if file.latents else codec.card["factor"]
    height, width = -(-file.height // factor), -(-file.width // factor)
    port, seen = recorder(file.stream, codec.symbol_count(*codec.padded(height, width)))
    codec.decode(port, height, width)
    return b"".join(part.tobytes() for part in seen), port.crc
