"""Jobs over many pictures, several at a time, each on one core, which wastes less than all cores on one picture; and jobs over
frames that follow one another, half of a frame's work while the other half of the one before is done."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
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


def ahead(items: Generator[Item, None, None]) -> Iterator[Item]:
    """The items in order, the next one made in a thread of its own while the caller works on the present one.

    At most one is ahead, so memory does not grow. What making an item raises comes in that item's place. To be closed: it
    then waits for the item in the making, ends the thread and closes ``items``. So it ends by itself too.
    """
    thread, end = ThreadPoolExecutor(1), object()
    try:
        # Ctrl-C while a pool starts its thread makes the pool forget it, and it then cannot be waited for: so it is started
        # before it has anything of ``items`` to do.
        thread.submit(object).result()
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item
            del item  # not kept while the next one is waited for
    finally:
        thread.shutdown(cancel_futures=True)
        items.close()
