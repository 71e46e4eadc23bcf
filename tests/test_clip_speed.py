"""Frames a second of clips: every stage of real work is timed, and the table says what was measured."""

from __future__ import annotations

import json

import pytest
import torch
from films import moving

from live.errors import InputError
from live.video.properties import Properties
from live.video.sink import open_sink
from testing import clip_speed


@pytest.mark.parametrize("option", ["--threads", "--repeat", "--frames"])
def test_nothing_is_measured_with_nothing(option, tmp_path):
    with pytest.raises(InputError, match="1 or more"):
        clip_speed.main(["--clip", str(tmp_path), option, "0"])


def test_table_of_frames_a_second(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clip_speed, "PEERS", ("x265_ld",))
    clip, before = tmp_path / "clip.mp4", torch.get_num_threads()
    with open_sink(clip, Properties(64, 48, 25), lossless=False) as sink:
        for frame in moving(64, 48, 4):
            sink.write(frame)
    arguments = ["--clip", str(clip), "--frames", "3", "--repeat", "1", "--threads", "1", "--json"]
    try:
        assert clip_speed.main(arguments) == 0
    finally:
        torch.set_num_threads(before)
    facts = json.loads(capsys.readouterr().out)
    assert facts["clip"] == "clip.mp4, 64 x 48, 3 frames" and facts["threads"] == 1
    assert set(facts["ours_fps"]) == {"live_video", "glc_video"}
    for ours in facts["ours_fps"].values():
        for way in ("encoding", "decoding"):
            assert min(ours[way].values()) > 0
            assert ours[way]["whole"] < 2 * ours[way]["codec"], "the whole contains the codec"
    assert facts["peers_fps"]["x265_ld"]["decode"] > 0
    rows = clip_speed.table(facts).splitlines()
    assert len(rows) == 5 and rows[2].startswith("| live_video, quality 2 |")
