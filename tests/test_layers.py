"""Data flows one way, and so do imports: what each part of the house may know of the others."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_KNOW = {
    "live/errors.py": set(),
    "live/nets.py": set(),
    "live/borrowed.py": set(),
    "live/depthconv.py": {"live.nets"},
    "live/tiles.py": {"live.errors"},
    "live/container.py": {"live.errors"},
    "live/coder.py": {"live.borrowed", "live.errors", "live.priors.tables"},
    "live/priors": {"live.borrowed", "live.errors", "live.nets", "live.depthconv", "live.priors"},
    "live/latents": {
        "live.artefact", "live.config", "live.errors", "live.latents", "live.nets", "live.priors.quantiser", "live.registry",
        "live.tiles",
    },
    "live/codecs": {
        "live.borrowed", "live.codecs", "live.coder", "live.config", "live.container", "live.depthconv", "live.errors",
        "live.latents.base", "live.nets", "live.priors", "live.tiles", "live.video.codec",
    },
    "live": {"live"},
    "training": {"live", "training"},
    "testing": {"live", "testing", "kodak", "vtm", "scripts"},
}  # fmt: skip
"""The modules and packages of the project that a file, or any file of a folder, may import."""
OWN = ("live", "training", "testing", "kodak", "vtm", "scripts", "tests")


def imported(path: Path) -> set[str]:
    """The project's modules that a file imports, wherever in it, by their full names."""
    package, found = path.relative_to(ROOT).parts[:-1], set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(
                [*(package[: len(package) - node.level + 1] if node.level else ()), node.module or ""]
            ).strip(".")
            inside = ROOT.joinpath(*base.split("."))  # what is imported from a package may be a module of it
            names = [f"{base}.{alias.name}" for alias in node.names if (inside / f"{alias.name}.py").exists()]
            found |= set(names) or {base}
    return {name for name in found if name.split(".")[0] in OWN}


@pytest.mark.parametrize("part", MAY_KNOW)
def test_a_part_knows_only_what_it_may(part):
    place = ROOT / part
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            known = any(name == allowed or name.startswith(f"{allowed}.") for allowed in MAY_KNOW[part])
            assert known, f"{path.relative_to(ROOT)} imports {name}"


def test_imports_are_found():
    assert imported(ROOT / "live/priors/fourpart.py") >= {"live.depthconv", "live.nets", "live.priors.exact"}
    assert imported(ROOT / "live/commands.py") >= {"live.api", "live.errors", "live.checkpoints"}
    assert "live.codecs.glc" in imported(ROOT / "live/codecs/__init__.py")


def test_every_package_of_the_library_is_installed():
    text = (ROOT / "pyproject.toml").read_text()
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "live").rglob("__init__.py")}
    assert all(f'"{".".join(folder.parts)}"' in text for folder in folders)
