"""CompressAI without what it imports beside: what is postponed comes when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASKED = """
import sys
import live.borrowed
late = [name for name in ("torch._dynamo", "torch_geometric", "torchvision", "scipy.stats") if name in sys.modules]
assert not late, late
{}
"""


@pytest.mark.parametrize(
    "code",
    [
        "model = live.borrowed.ScaleHyperprior(8, 8); assert model.update()  # which takes quantiles",
        "import torchvision.transforms as t; assert t.ToTensor",
        "import compressai; assert compressai.available_entropy_coders()",
        "from compressai.datasets import ImageFolder; from compressai.transforms import RGB2YCbCr; import torch_geometric.data",
    ],
    ids=["quantiles", "torchvision", "compressai", "datasets"],
)
def test_what_is_postponed_comes_when_it_is_asked_for(code):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ASKED.format(code)], capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_beside_another_thread_nothing_is_replaced():
    """It could import one of them at that moment and would keep an empty module."""
    code = """
import sys, threading
end = threading.Event()
threading.Thread(target=end.wait).start()
import live.borrowed
end.set()
assert sys.modules["torchvision"].__file__
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_after_compressai_itself_nothing_is_touched():
    code = "import compressai.datasets as before, live.borrowed, compressai.datasets as after; assert before is after"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr
