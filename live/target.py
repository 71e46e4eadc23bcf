"""The target rate of a picture, instead of a quality: the largest file that is small enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    from .codecs.base import LatentCodec


def check_target(target_bpp: float | None, quality: float | None, refine: int = 0) -> None:
    """InputError unless a target rate, where there is one, is a number above 0 and comes without a quality, and without a search,
    whose steps are a whole number."""
    if not isinstance(refine, int) or isinstance(refine, bool) or refine < 0:
        raise InputError(f"a file is refined in a whole number of steps, 0 or more, not {refine!r}")
    if target_bpp is None:
        return
    if quality is not None:
        raise InputError("give a quality or a target rate, not both")
    if refine:
        raise InputError("a file is refined at a quality; give one in the place of the target rate")
    if not isinstance(target_bpp, Real) or not target_bpp > 0:
        raise InputError(f"a target rate must be a number of bits a pixel above 0, not {target_bpp!r}")


def largest_within(
    size: float, dial: Sequence[Callable[[], LatentCodec]], packed: Callable[[LatentCodec], bytes], hint: str
) -> bytes:
    """The largest file of at most ``size`` bytes, by bisection; InputError, which ends in ``hint``, when none is as small."""
    best, low, high = b"", 0, len(dial)
    while low < high:
        middle = (low + high) // 2
        data = packed(dial[middle]())
        if len(data) <= size:
            best, low = data, middle + 1
        else:
            smallest, high = len(data), middle
    if not best:
        raise InputError(
            f"the lowest quality takes {smallest} bytes, more than the {int(size)} of the target rate; give a higher one{hint}"
        )
    return best
