"""The golden files decode to the same symbols however floats are stored, summed, rounded or disturbed on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_golden import CLIPS, EXPECTED, FILES, GOLDEN, facts
from torch.overrides import TorchFunctionMode

from live.checkpoints import codec_at, load_codec
from live.registry import cache_dir

ALL = FILES | CLIPS
ENTROPY = {
    "live_plus": "hyper", "live_paper": "h_s", "glc": "prior", "live_video": "temporal.blocks", "glc_video": "prior",
}  # fmt: skip
"""Where a codec's entropy networks are; of live_video the others' weights shape pixels too."""
SUMS = {
    "conv2d",
    "conv_transpose2d",
    "linear",
    "matmul",
    "mm",
    "bmm",
    "einsum",
    "addmm",
    "addmm_",
    "baddbmm",
    "__matmul__",
}
"""Where floating-point numbers are summed, in an order that is the library's business."""


class OnSums(TorchFunctionMode):
    """Replaces every sum of floating-point numbers by ``how(function, arguments, options)``; counts them."""

    def __init__(self, how: Callable[..., torch.Tensor]):
        super().__init__()
        self.how, self.count = how, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") not in SUMS:
            return function(*args, **(kwargs or {}))
        self.count += 1
        return self.how(function, args, kwargs or {})


def disturbed(function, args, options):
    result = function(*args, **options)
    if not result.is_floating_point():
        return result
    noise = 1e-6 * (2 * torch.rand(result.shape, generator=torch.Generator().manual_seed(1)) - 1)
    return result.add_(noise) if function.__name__.endswith("_") else result + noise


def on_the_gpu(function, args, options):
    moved = [value.cuda() if isinstance(value, torch.Tensor) else value for value in args]
    result = function(*moved, **options).cpu()
    return args[0].copy_(result) if function.__name__.endswith("_") else result


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(autouse=True)
def fresh_codecs(monkeypatch):
    """Codecs loaded, and their integer networks made, under the setting of the test."""
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(GOLDEN))
    codec_at.cache_clear()
    yield
    codec_at.cache_clear()


def assert_all_decode() -> None:
    expected = json.loads(EXPECTED.read_text())
    for name in ALL:
        found = facts(name, (GOLDEN / f"{name}.live").read_bytes())
        assert (found["symbols"], found["count"]) == (expected[name]["symbols"], expected[name]["count"]), name


@pytest.mark.parametrize(
    "setting",
    [
        lambda: threads(1),
        lambda: threads(2),
        lambda: torch.backends.mkldnn.flags(enabled=False),
        lambda: default_dtype(torch.float64),
        lambda: torch.autocast("cpu", torch.bfloat16),
    ],
    ids=["1 thread", "2 threads", "oneDNN off", "float64 by default", "bf16 autocast"],
)
def test_symbols_under_another_setting(setting):
    with setting():
        assert_all_decode()


@pytest.mark.parametrize("form", [{"memory_format": torch.channels_last}, {"dtype": torch.float64}], ids=str)
def test_symbols_of_a_codec_held_in_another_form(form):
    for name in {checkpoint for checkpoint, _ in ALL.values()}:
        codec = load_codec(GOLDEN / f"{name}.safetensors")
        codec.get_submodule(ENTROPY[codec.name]).to(**form)
    assert_all_decode()


def test_symbols_when_every_sum_is_off_by_a_millionth():
    """What another order of summation, or another kernel, may do."""
    with OnSums(disturbed) as mode:
        assert_all_decode()
    assert mode.count > 20


def test_the_disturbance_is_one():
    """Else the test above could not fail: without the rounding to integers the same disturbance is seen."""
    layer, x = torch.nn.Conv2d(2, 2, 3), torch.ones(1, 2, 8, 8)
    with torch.no_grad():
        plain = layer(x)
        with OnSums(disturbed):
            assert not torch.equal(layer(x), plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_symbols_when_sums_run_on_a_gpu():
    with OnSums(on_the_gpu) as mode:
        assert_all_decode()
    assert mode.count > 20


OLD_TORCH, ITS_TORCHVISION = "2.6.0", "0.21.0"
"""The oldest release that pyproject.toml allows."""
IN_THE_OTHER_RELEASE = """
import json, sys, torch
sys.path.insert(0, {tests!r})
from test_golden import CLIPS, FILES, GOLDEN, facts
found = {{name: facts(name, (GOLDEN / f"{{name}}.live").read_bytes())["symbols"] for name in FILES | CLIPS}}
print(json.dumps({{"torch": torch.__version__, "symbols": found}}))
"""


def older_torch() -> Path:
    """The interpreter of an environment with ``OLD_TORCH``, made once in the cache folder (5.5 GB there, minutes).

    It holds torch and what belongs to it alone; every other package is this environment's. Skips when it cannot be made.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache_dir() / "venvs" / f"torch-{OLD_TORCH}-py{version}"
    python, complete = folder / "bin" / "python", folder / "complete"
    paths = folder / "lib" / f"python{version}" / "site-packages" / "everything_else.pth"
    everything_else = sysconfig.get_paths()["purelib"] + "\n"
    if complete.exists():
        paths.write_text(everything_else)
        return python
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    wanted = [f"torch=={OLD_TORCH}", f"torchvision=={ITS_TORCHVISION}", "numpy>=1.26,<2"]
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", "--retries", "1", *wanted]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], install):
        try:
            done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=900)
        except subprocess.TimeoutExpired:
            pytest.skip(f"torch {OLD_TORCH} could not be installed within 15 minutes")
        if done.returncode:
            pytest.skip(f"torch {OLD_TORCH} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    paths.write_text(everything_else)
    complete.touch()
    return python


@pytest.mark.slow
def test_symbols_in_an_older_torch_release():
    script = IN_THE_OTHER_RELEASE.format(tests=str(GOLDEN.parent))
    environment = os.environ | {"PYTHONPATH": str(GOLDEN.parent.parent)}
    command = [str(older_torch()), "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["torch"].startswith(OLD_TORCH)
    assert found["symbols"] == {name: facts["symbols"] for name, facts in json.loads(EXPECTED.read_text()).items()}
