"""What a clip is beside its pixels: size, frame rate, shape of a pixel, colour. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

MATRICES = {0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 9: "bt2020nc"}
PRIMARIES = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020", 10: "smpte428",
    11: "smpte431", 12: "smpte432", 22: "jedec-p22",
}  # fmt: skip
TRANSFERS = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100", 10: "log316",
    11: "iec61966-2-4", 12: "bt1361e", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084",
    17: "smpte428", 18: "arib-std-b67",
}  # fmt: skip
"""Numbers of ITU-T H.273 and what ffmpeg calls them: matrices (RGB is one), primaries and transfer curves."""
RGB, BT709, UNSPECIFIED = 0, 1, 2


@dataclass(frozen=True)
class Colour:
    """How a clip's source stores colours, as numbers of H.273, so that what is decoded can be stored like it.

    Its frames are converted to RGB by ``matrix`` and range, and back; primaries and transfer are passed on.
    """

    matrix: int = BT709
    full_range: bool = False
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


@dataclass(frozen=True)
class Properties:
    """Width and height in px, frames a second, width over height of a pixel, and colour."""

    width: int
    height: int
    rate: Fraction
    aspect: Fraction = Fraction(1)
    colour: Colour = field(default_factory=Colour)
