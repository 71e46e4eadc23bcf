"""VTM's plumbing, with stand-in binaries: arguments, colour conversion, files, and refusals. The real one is the user's."""

import sys

import numpy as np
import pytest
from conftest import photo

from live.errors import ModelError
from vtm.codec import Vtm, to_rgb, to_yuv

ENCODER = """#!{python}
import sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert arguments["-c"].endswith("encoder_intra_vtm.cfg") and arguments["-q"] == "32"
data = open(arguments["-i"], "rb").read()
assert len(data) == 6 * int(arguments["-wdt"]) * int(arguments["-hgt"])
open(arguments["-b"], "wb").write(data[::-1])
"""
DECODER = """#!{python}
import sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
open(arguments["-o"], "wb").write(open(arguments["-b"], "rb").read()[::-1])
"""


@pytest.fixture
def binaries(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "cfg").mkdir()
    (tmp_path / "cfg" / "encoder_intra_vtm.cfg").touch()
    for name, script in (("EncoderAppStatic", ENCODER), ("DecoderAppStatic", DECODER)):
        (tmp_path / "bin" / name).write_text(script.format(python=sys.executable))
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("VTM_BIN", str(tmp_path / "bin"))
    return tmp_path


def test_ten_bit_conversion_is_all_but_lossless():
    image = photo(33, 17)
    assert np.abs(np.asarray(to_rgb(to_yuv(image)), int) - np.asarray(image, int)).max() <= 1


def test_grey_has_no_chroma():
    planes = to_yuv(photo(8, 8).convert("L").convert("RGB"))
    assert (planes[1:] == 512).all()


def test_round_trip_through_the_binaries(binaries):
    image = photo(35, 18)
    data = Vtm().encode(image, 32)
    assert len(data) == 4 + 6 * 35 * 18
    assert Vtm().decode(data).tobytes() == to_rgb(to_yuv(image)).tobytes()


def test_failures_are_said(binaries, monkeypatch):
    with pytest.raises(ModelError, match="EncoderAppStatic failed: AssertionError"):
        Vtm().encode(photo(16, 16), 31)
    monkeypatch.delenv("VTM_BIN")
    for given in ("", str(binaries / "cfg")):
        monkeypatch.setenv("VTM_CFG", given)
        with pytest.raises(ModelError, match="set VTM_BIN"):
            Vtm().encode(photo(16, 16), 32)
    monkeypatch.setenv("VTM_CFG", str(binaries))
    with pytest.raises(ModelError, match="set VTM_CFG"):
        Vtm().encode(photo(16, 16), 32)
