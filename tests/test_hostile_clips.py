"""Hostile clips: what the fuzzer does to them, and that it would find a decoder that is wrong; interrupted encoding."""

from __future__ import annotations

import io
from collections import Counter
from random import Random

import pytest
from films import moving
from test_golden import GOLDEN

import live
from live.codecs import GlcVideo
from live.codecs.video.live_video import LiveVideo
from live.errors import LiveError
from live.video import api as clips
from live.video.container import ClipReader
from testing import fuzz
from testing.attacks import OTHER_FILE, SAME, SILENT
from testing.clip_attacks import SALVAGED, ClipCodecs, ClipContainer, ClipFile, symbols_of_clip
from testing.clip_mutations import opened, resealed, written

CLIPS = sorted((GOLDEN / "clips").glob("*.live"))


@pytest.fixture(autouse=True)
def golden_models(monkeypatch):
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(GOLDEN))


@pytest.fixture
def attack() -> ClipCodecs:
    attack = ClipCodecs(3)
    attack.prepare()
    return attack


def test_there_are_clips_of_both_codecs_to_attack():
    assert {opened(path.read_bytes())[0].codec_id for path in CLIPS} == {4, 5}


def test_what_is_not_altered_is_the_same_file():
    for path in CLIPS:
        data = path.read_bytes()
        assert written(*opened(data)) == data
        assert [crc for _, crc in symbols_of_clip(data)] == [frame.symbols_crc for frame in opened(data)[1]]


def test_altered_records_reach_what_lies_behind_their_checksums():
    data, said = CLIPS[0].read_bytes(), Counter()
    for seed in range(400):
        try:
            ClipReader(io.BytesIO(resealed(data, Random(seed)))).check()
        except LiveError as error:
            said[str(error)] += 1
        else:
            said["whole"] += 1
    for words in ("not an intra frame", "index does not fit", "claims 1", "not where it should be", "cut off", "whole"):
        assert any(words in known for known in said), words


def test_containers_of_clips():
    attack = ClipContainer(3)
    attack.prepare()
    outcomes = Counter(attack(number) for number in range(600))
    assert {SAME, OTHER_FILE, "DamagedFile", "NewerFormat", "NotLiveFile"} <= set(outcomes)
    assert not set(outcomes) & set(fuzz.FAILURES)


def test_codecs_of_clips(attack):
    outcomes = Counter(attack(number) for number in range(40))
    assert {SALVAGED, OTHER_FILE, "DecodeMismatch"} <= set(outcomes)
    assert not set(outcomes) & set(fuzz.FAILURES)


def test_a_decoder_that_checks_no_symbols_is_found(attack, monkeypatch):
    monkeypatch.setattr(clips, "check_decoded", lambda *_: None)
    assert SILENT in {attack(number) for number in range(40)}


def test_whole_clips_altered_and_left_so():
    attack = ClipFile(3)
    attack.prepare()
    outcomes = Counter(attack(number) for number in range(60))
    assert "DamagedFile" in outcomes and not set(outcomes) & set(fuzz.FAILURES)


@pytest.mark.parametrize(("kind", "name"), [(GlcVideo, "glc_video"), (LiveVideo, "live_video")])
def test_an_interrupted_encoding_leaves_the_old_file(tmp_path, monkeypatch, kind, name):
    (tmp_path / "a.live").write_bytes(b"old")
    walk, states = kind.walk_predicted, []

    def interrupted(self, port, height, width, state, latents=None):
        states.append(state)
        if len(states) == 3:
            raise KeyboardInterrupt
        return walk(self, port, height, width, state, latents)

    monkeypatch.setattr(kind, "walk_predicted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint = GOLDEN / "clips" / f"{name}.safetensors"
        live.compress_clip(moving(37, 21, 5), tmp_path / "a.live", 2, checkpoint=checkpoint, fps=25)
    assert [path.name for path in tmp_path.iterdir()] == ["a.live"] and (tmp_path / "a.live").read_bytes() == b"old"
