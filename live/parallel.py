"""Jobs over many pictures: several at a time, each on one core, which wastes less than all cores on one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item, Result = TypeVar("Item"), TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """``work(item)`` for every item, in order, on as many threads as torch uses; torch uses one in each meanwhile.

    Reading, networks, entropy coding and writing of different items so overlap. An exception ends the job, as Ctrl-C does:
    what has begun is finished, so that no file is left half-written, and the rest is not begun.
    """
    cores = torch.get_num_threads()
    pool = ThreadPoolExecutor(min(cores, len(items)))
    torch.set_num_threads(1)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)
