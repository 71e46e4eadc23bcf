"""docs/format.md is enough for a second decoder of clips: this one, in numpy's integers alone, from records to symbols."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256

import numpy as np
import pytest
from test_format_glc import Networks, Symbols, clipped, entries_of, glc_frame, opened, selecting, shuffled
from test_golden import CLIPS, EXPECTED, GOLDEN

from live.video.container import ClipReader, Frame
from live.video.header import ClipHeader

LEVELS = (0, 1, 0, 2, 0, 2, 0, 2)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def stacked(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)


def checkerboard(
    symbols: Symbols, shape: tuple[int, ...], predicted: Callable[[np.ndarray | None], tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """The anchors, then the other positions: symbols plus means, in units of 1/64.

    predicted: means and rows everywhere, given nothing; then given the anchors, zero elsewhere.
    """
    values, known = np.zeros(shape, np.int64), None
    anchors = np.indices(shape[1:]).sum(0) % 2 == 0
    for place in (anchors, ~anchors):
        means, rows = predicted(known)
        values[:, place] = 64 * symbols.read(rows[:, place], "y") + means[:, place]
        known = values.copy()
    return values


class LivePlusFrames:
    def __init__(self, tensors: dict[str, np.ndarray], config: dict):
        self.networks, self.config = Networks(tensors), config

    def read(self, stream: bytes, rows: int, columns: int) -> tuple[np.ndarray, list[int]]:
        """y in units of 1/64, and all symbols."""
        symbols, convolved = Symbols(stream, self.networks.tensors), self.networks.convolved
        z = symbols.read_z(self.config["z_channels"], rows, columns)
        x = relu(shuffled(convolved(z, "hyper.h_s.0.0")))
        features = relu(convolved(relu(shuffled(convolved(x, "hyper.h_s.2.0"))), "hyper.h_s.4"))
        head = convolved(features, "hyper.head")

        def predicted(anchors: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
            if anchors is None:
                return selecting(head)
            context = relu(convolved(clipped(16 * anchors), "hyper.context"))
            hidden = relu(convolved(stacked(features, context), "hyper.context_head.0"))
            return selecting(head + convolved(hidden, "hyper.context_head.2"))

        y = checkerboard(symbols, (self.config["channels"], 4 * rows, 4 * columns), predicted)
        return y, symbols.seen


class LiveVideoFrames:
    def __init__(self, tensors: dict[str, np.ndarray], config: dict, q: int):
        self.networks, self.config, self.q = Networks(tensors), config, q

    def gained(self, x: np.ndarray, name: str) -> np.ndarray:
        return self.networks.convolved(x, f"temporal.{name}.{self.q}", len(x))

    def read(self, stream: bytes, before: np.ndarray, behind_intra: bool) -> tuple[np.ndarray, list[int]]:
        """before: y of the frame before, in units of 1/64, as is the result; and all symbols."""
        symbols, convolved = Symbols(stream, self.networks.tensors), self.networks.convolved
        channels, height, width = before.shape
        before = clipped(before)
        if behind_intra:
            before = (self.gained(clipped(16 * before), "fineness") + 8) >> 4

        def entering(y: np.ndarray) -> np.ndarray:
            return self.gained(clipped(16 * y), "inward")

        z = symbols.read_z(self.config["z_channels"], height // 4, width // 4)
        vector = np.floor(1024 * self.networks.tensors["temporal.vectors"][self.q].astype(np.float64) + 0.5)
        entered = clipped(
            convolved(entering(before), "temporal.enter") + clipped(vector.astype(np.int64))[:, None, None]
        )
        hyper = shuffled(convolved(relu(convolved(z, "temporal.h_s.0")), "temporal.h_s.2"), 4)
        features = clipped(entered + hyper)
        for block in range(self.config["blocks"]):
            features = self.networks.depth_block(features, f"temporal.blocks.{block}")
        head = convolved(features, "temporal.head")

        def predicted(y: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
            result = head
            if y is not None:
                anchors = np.indices(y.shape[1:]).sum(0) % 2 == 0
                context = relu(convolved(entering(np.where(anchors, y - before, 0)), "temporal.context"))
                hidden = relu(convolved(stacked(features, context), "temporal.context_head.0"))
                result = head + convolved(hidden, "temporal.context_head.2")
            corrections = self.gained(result[:channels], "outward")
            means, rows = selecting(stacked(corrections, result[channels:]))
            return before + means, rows

        return checkerboard(symbols, before.shape, predicted), symbols.seen


class GlcVideoFrames:
    def __init__(self, tensors: dict[str, np.ndarray], config: dict):
        self.networks, self.config = Networks(tensors), config

    def read(self, stream: bytes, before: np.ndarray, p: int) -> tuple[np.ndarray, list[int]]:
        """before: y of the frame before, in units of 1/1024, as is the result; and all symbols."""
        symbols, networks, config, n = Symbols(stream, self.networks.tensors), self.networks, self.config, len(before)
        k = 0 if p % 32 == 1 else 1 + LEVELS[p % 8]
        features = base = networks.convolved(before, f"prior.context.adaptors.{k}")
        for block in range(config["context_blocks"]):
            features = networks.depth_block(features, f"prior.context.blocks.{block}")
        numbers = symbols.read(np.zeros(config["tokens"], int), "z").clip(0, config["codebook"] - 1)
        entries = entries_of(networks.tensors["prior.tokens.quantiser.codebook"])[numbers]
        maps = np.split(networks.convolved(features, "prior.tokens.spreading"), config["heads"])
        parts = zip(maps, np.split(entries, config["heads"], 1), strict=True)
        spread = stacked(*(np.einsum("trc,tn->nrc", weights, vectors) for weights, vectors in parts))
        fused = networks.depth_block(stacked(clipped((spread + 512) >> 10), features), "prior.fusion")
        head, reduced = (networks.convolved(fused, f"prior.{name}") for name in ("head", "reduction"))

        def predicted(u: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
            if u is None:
                return selecting(head[n:])
            x, last = stacked(clipped(16 * u), reduced), 1 + config["blocks"]
            for block in range(last):
                x = networks.depth_block(x, f"prior.second.{block}")
            return selecting(head[n:] + networks.convolved(x, f"prior.second.{last}"))

        u = checkerboard(symbols, before.shape, predicted)
        return clipped(((u * head[:n].clip(512) + 32) >> 6) + base), symbols.seen


def checkpoints() -> dict[str, tuple[dict[str, np.ndarray], dict]]:
    """Those of golden pictures, by identity."""
    return {card["identity"]: (tensors, card) for tensors, card in map(opened, GOLDEN.glob("*.safetensors"))}


def symbols_of(name: str, header: ClipHeader, frames: list[Frame]) -> Iterator[np.ndarray]:
    """Every frame's symbols, in coding order."""
    tensors, card = opened(GOLDEN / f"{CLIPS[name][0]}.safetensors")
    images = [checkpoints()[identity] for identity in card["images"]]
    cell = 4 * (1 if header.latents else card["factor"])
    rows, columns = -(-header.properties.height // cell), -(-header.properties.width // cell)
    if header.codec_id == 5:
        q = [image["quality"] for _, image in images].index(header.quality)
        intra, predicted = (
            LivePlusFrames(images[q][0], images[q][1]["config"]),
            LiveVideoFrames(tensors, card["config"], q),
        )
    else:
        predicted = GlcVideoFrames(tensors, card["config"])
    y, p = np.zeros(0), 0
    for frame in frames:
        p = 0 if frame.intra else p + 1
        if header.codec_id == 5:
            y, seen = (
                intra.read(frame.stream, rows, columns) if frame.intra else predicted.read(frame.stream, y, p == 1)
            )
        elif frame.intra:
            symbols = Symbols(frame.stream, images[0][0])
            u, steps = glc_frame(symbols, Networks(images[0][0]), images[0][1]["config"], rows, columns)
            decoded = (u / 64).astype(np.float32) * (steps / 1024).astype(np.float32)
            y, seen = clipped(np.floor(1024 * decoded.astype(np.float64) + 0.5).astype(np.int64)), symbols.seen
        else:
            y, seen = predicted.read(frame.stream, y, p)
        yield np.array(seen, "<i4")


@pytest.mark.parametrize("name", CLIPS)
def test_a_second_decoder_reads_the_symbols_of_clips(name):
    with open(GOLDEN / f"{name}.live", "rb") as file:
        reader = ClipReader(file)
        frames, found = list(reader.frames()), []
        assert {frame.intra for frame in frames} == {True, False}
        for frame, symbols in zip(frames, symbols_of(name, reader.header, frames), strict=True):
            assert zlib.crc32(symbols.tobytes()) == frame.symbols_crc, f"frame {frame.number}"
            found.append(symbols)
    expected = json.loads(EXPECTED.read_text())[name]
    assert sha256(np.concatenate(found).tobytes()).hexdigest() == expected["symbols"]
