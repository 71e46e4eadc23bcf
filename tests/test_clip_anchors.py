"""The peers of our codecs of clips: real files both ways, as their labels state."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from films import moving

from live.errors import ModelError
from testing.clip_anchors import CLIP_ANCHORS, ClipAnchor

RATE = Fraction(25)


@pytest.fixture(params=CLIP_ANCHORS)
def anchor(request: pytest.FixtureRequest, tmp_path: Path) -> ClipAnchor:
    codec = CLIP_ANCHORS[request.param]
    try:
        codec.encode(moving(64, 64, 1), RATE, tmp_path / "probe", codec.settings[0])
    except ModelError as error:
        pytest.skip(str(error))
    return codec


def coded(codec: ClipAnchor, path: Path, setting: float, size: tuple[int, int], count: int):
    codec.encode(moving(*size, count), RATE, path, setting)
    return list(codec.decode(path))


def psnr(a, b) -> float:
    error = np.mean([(np.asarray(x, float) - np.asarray(y)) ** 2 for x, y in zip(a, b, strict=True)])
    return float(10 * np.log10(255**2 / error))


def test_round_trip_and_rate(anchor, tmp_path):
    """Every frame comes back in order, at an odd size too, and more bits make it better."""
    size, count, quality, length = (67, 71), 9, [], []
    for setting in (anchor.settings[0], anchor.settings[-1]):
        path = tmp_path / f"clip{anchor.suffix}"
        decoded = coded(anchor, path, setting, size, count)
        assert {frame.size for frame in decoded} == {size}
        quality.append(psnr(moving(*size, count), decoded))
        length.append(path.stat().st_size)
    assert quality[0] + 3 < quality[1] > 26 and length[0] < length[1]
    shifted = [decoded[0], *decoded[:-1]]
    assert psnr(moving(*size, count), shifted) < quality[1] - 2


def test_bytes_of_frames(anchor, tmp_path):
    """In low delay they are the file but for the byte of padding, and the first, the only intra frame, is the largest."""
    path = tmp_path / f"clip{anchor.suffix}"
    coded(anchor, path, anchor.settings[3], (64, 64), 12)
    sizes = anchor.frame_bytes(path)
    assert ("low delay" in anchor.label) == anchor.name.endswith("_ld") == (sizes is not None)
    if sizes is not None:
        assert len(sizes) == 12 and sum(sizes) == path.stat().st_size - 1
        assert sizes[0] == max(sizes) and sorted(sizes)[-2] < sizes[0]


def test_no_text_is_counted(anchor, tmp_path):
    path = tmp_path / f"clip{anchor.suffix}"
    coded(anchor, path, anchor.settings[0], (64, 64), 2)
    data = path.read_bytes()
    assert b"x264" not in data and b"x265" not in data and len(data) < 1000


def test_a_cut_makes_no_second_intra_frame(tmp_path):
    codec, cut = CLIP_ANCHORS["x265_ld"], [*moving(64, 64, 6), *(frame.rotate(90) for frame in moving(64, 64, 6))]
    codec.encode(cut, RATE, tmp_path / "clip.265", 35)
    kinds = [nal >> 1 & 63 for nal in _nals((tmp_path / "clip.265").read_bytes()[1:])]
    assert sum(16 <= kind <= 23 for kind in kinds) == 1 and sum(kind < 16 for kind in kinds) == 11


def _nals(stream: bytes) -> list[int]:
    """The first byte of each unit of an Annex B stream."""
    return [part[0] for part in stream.split(b"\0\0\1")[1:]]


def test_damage_and_a_refused_size_are_one_line(tmp_path):
    codec, path = CLIP_ANCHORS["x265_ld"], tmp_path / "clip.265"
    path.write_bytes(b"\0nothing that decodes")
    with pytest.raises(ModelError, match=r"cannot decode .*clip\.265"):
        list(codec.decode(path))
    with pytest.raises(ModelError, match="ffmpeg with libx265 failed"):
        codec.encode(moving(64, 64, 2), RATE, path, 99)
