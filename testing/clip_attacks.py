"""What the fuzzer does to clips' files, and how it judges what becomes of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile

from live.artefact import read_card
from live.container import unpack
from live.errors import LiveError
from live.video.container import ClipReader, Frame
from live.video.header import ClipHeader, unpack_header

from .attacks import CLIPS, OTHER_CLAIM, OTHER_FILE, SAME, SILENT, Attack, golden_files, recorder, use_golden_models
from .clip_mutations import false_frame, false_header, false_order, opened, resealed, written
from .mutations import mutate

SALVAGED = "salvaged"


class ClipContainer(Attack):
    """Bytes -> frames. Without right checksums nothing but the same bytes may pass, and nothing but these frames be salvaged."""

    def prepare(self) -> None:
        self.files = golden_files(CLIPS)

    def attempt(self) -> str:
        original = self.random.choice(list(self.files.values()))
        repaired = self.random.random() < 0.5
        data = resealed(original, self.random) if repaired else mutate(original, self.random)
        salvaged = self._salvaged(data)
        if not repaired and not {frame[:4] for frame in salvaged} <= {frame[:4] for frame in opened(original)[1]}:
            return SILENT
        ClipReader(io.BytesIO(data)).check()
        if data == original:
            return SAME
        header, frames = opened(data)
        again = opened(written(header, frames))
        same = again[0] == header and [frame[:4] for frame in again[1]] == [frame[:4] for frame in frames]
        return OTHER_FILE if repaired and same else SILENT

    def _salvaged(self, data: bytes) -> list[Frame]:
        try:
            return [f for f in ClipReader(io.BytesIO(data), salvage=True).frames() if f.stream is not None]
        except LiveError:
            return []


class ClipCodecs(Attack):
    """A whole file -> pictures or latents, by the library's front door, three in ten by salvage."""

    def prepare(self) -> None:
        use_golden_models()
        import torch

        torch.set_num_threads(1)
        self.files = golden_files(CLIPS)
        self.fields = {name: opened(data) for name, data in self.files.items()}
        self.claims = [*(header for header, _ in self.fields.values()), *map(unpack, golden_files().values())]
        self.frames = [frame for _, frames in self.fields.values() for frame in frames]
        self.decoded = {name: pictures_of(data) for name, data in self.files.items()}
        self.known = {crc: seen for data in self.files.values() for seen, crc in symbols_of_clip(data)}

    def attempt(self) -> str:
        name = self.random.choice(list(self.files))
        if self.random.random() < 0.3:
            return self._by_salvage(name)
        header, frames = self.fields[name]
        kind = self.random.random()
        if kind < 0.5:
            frames = false_frame(frames, self.frames, self.random)
        elif kind < 0.7:
            frames = false_order(frames, self.random)
        else:
            header = false_header(header, self.claims, self.random)
        forged = kind < 0.7 and self.random.random() < 0.3
        if forged:  # the symbols' checksums too: a file that somebody made, up to the autoencoder's decoder
            right = [crc for _, crc in symbols_of_clip(written(header, frames))]
            frames = [frame._replace(symbols_crc=crc) for frame, crc in zip(frames, right, strict=True)]
        data = written(header, frames)
        if pictures_of(data) == self.decoded[name]:
            return SAME
        if forged:
            return OTHER_FILE
        for frame, (seen, _) in zip(frames, symbols_of_clip(data), strict=True):
            if self.known.get(frame.symbols_crc) != seen:
                return SILENT
        if header != self.fields[name][0]:
            return OTHER_CLAIM
        return OTHER_FILE if [f[1:4] for f in frames] != [f[1:4] for f in self.fields[name][1]] else SILENT

    def _by_salvage(self, name: str) -> str:
        """Whatever was hurt, no picture comes that the clip does not have."""
        if self.random.random() < 0.5:
            data = mutate(self.files[name], self.random)
        else:
            header, frames = self.fields[name]
            data = written(header, false_frame(frames, self.frames, self.random))
        pictures, whole = pictures_of(data, salvage=True), self.decoded[name]
        if not set(pictures) <= set(whole):
            return SILENT
        return SAME if pictures == whole else SALVAGED


class ClipFile(ClipCodecs):
    """A whole file, altered and left so, by the library's front door: nothing but the same frames may come."""

    def attempt(self) -> str:
        name = self.random.choice(list(self.files))
        return SAME if pictures_of(mutate(self.files[name], self.random)) == self.decoded[name] else SILENT


def pictures_of(data: bytes, salvage: bool = False) -> list[bytes]:
    """What a clip decodes to, pictures or latents, its size included, as comparable bytes."""
    import live

    header = unpack_header(data)[0]
    kind = live.decompress_clip_latents if header.latents else live.clip_frames
    with NamedTemporaryFile(suffix=".live") as file:
        file.write(data)
        file.flush()
        with kind(file.name, checkpoint=checkpoint_of(header), salvage=salvage) as frames:
            if header.latents:
                return [repr(frame.shape).encode() + frame.numpy().tobytes() for frame in frames]
            return [repr(frame.size).encode() + frame.tobytes() for frame in frames]


def checkpoint_of(header: ClipHeader) -> Path | None:
    """The codec of clips that a header names, None: it is one of pictures, or none that there is."""
    known = {read_card(path)["identity"][:16]: path for path in CLIPS.glob("*.safetensors")}
    return known.get(header.model.hex())


def symbols_of_clip(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Every frame's symbols in coding order, as bytes, and their CRC-32, whatever the file says of it."""
    from live.checkpoints import by_identity, load_codec
    from live.video.codec import clip_codec

    header, frames = opened(data)
    codec = load_codec(by_identity(header.model, checkpoint_of(header)).path).at_byte(header.quality)
    coder, state = clip_codec(codec), None
    factor = 1 if header.latents else codec.card["factor"]
    height, width = (-(-side // factor) for side in (header.properties.height, header.properties.width))
    for frame in frames:
        port, seen = recorder(frame.stream, coder.symbol_count(height, width, frame.intra))
        _, state = coder.decode(port, height, width, None if frame.intra else state)
        yield b"".join(part.tobytes() for part in seen), port.crc
