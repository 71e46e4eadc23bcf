"""What LIVE uses of CompressAI, without what that package imports for point clouds, datasets and quantiles.

``import compressai`` also imports torchvision, torch_geometric, by them torch's compiler, and scipy.stats: more than half of
the time that a process took to start. While it is imported here, empty modules stand in their place; they are gone afterwards,
so that whoever imports those packages gets them, and CompressAI gets scipy.stats when it first needs a quantile. Its registry
then lacks the transforms that torchvision and torch_geometric bring.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

POSTPONED = (
    "compressai.datasets", "compressai.transforms", "scipy.stats",
    "torch_geometric", "torch_geometric.transforms", "torchvision", "torchvision.transforms",
)  # fmt: skip


@contextmanager
def without(names: tuple[str, ...]) -> Iterator[None]:
    """Empty modules of these names, where none is imported yet, within the block alone."""
    stand_ins = {name: ModuleType(name) for name in names if name not in sys.modules}
    for name, module in stand_ins.items():
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent in stand_ins:
            setattr(stand_ins[parent], child, module)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            sys.modules.pop(name, None)
            parent, _, child = name.rpartition(".")
            if vars(sys.modules.get(parent, module)).get(child) is module:
                delattr(sys.modules[parent], child)


# Another thread that imports one of them meanwhile must not be given the empty one.
_alone = "compressai" not in sys.modules and threading.active_count() == 1
with without(POSTPONED if _alone else ()):
    from compressai._CXX import pmf_to_quantized_cdf
    from compressai.ans import BufferedRansEncoder, RansDecoder
    from compressai.entropy_models import EntropyBottleneck, GaussianConditional
    from compressai.models.google import ScaleHyperprior
    from compressai.models.utils import conv, deconv
    from compressai.ops import LowerBound

__all__ = [
    "BufferedRansEncoder",
    "EntropyBottleneck",
    "GaussianConditional",
    "LowerBound",
    "RansDecoder",
    "ScaleHyperprior",
    "conv",
    "deconv",
    "pmf_to_quantized_cdf",
]
