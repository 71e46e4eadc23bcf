"""Configurations: differences from a base, types, and refusals that name the key."""

from dataclasses import dataclass

import pytest

from live.config import load_yaml, merge, parse
from live.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    steps: int
    inner: Inner = Inner()
    name: str | None = None


def test_base_is_overridden_deeply(tmp_path):
    (tmp_path / "base.yaml").write_text("steps: 5\ninner: {rate: 5e-4, sizes: [3]}\n")
    (tmp_path / "ours.yaml").write_text("base: base.yaml\ninner: {sizes: [7, 8]}\n")
    config = parse(Outer, load_yaml(tmp_path / "ours.yaml"))
    assert config == Outer(5, Inner(5e-4, (7, 8)))


def test_a_file_that_is_a_base_of_itself(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: ./a.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml is a base of itself"):
        load_yaml(tmp_path / "a.yaml")


def test_merge_leaves_its_arguments_alone():
    base = {"a": {"b": 1}}
    assert merge(base, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert base == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 1, "inner": {"rte": 1}}, "unknown setting inner.rte"),
        ({"steps": "many"}, "steps must be int"),
        ({"steps": True}, "steps must be int"),
        ({"steps": 1, "inner": 3}, "inner must be a mapping"),
        ({"steps": 1, "inner": {"sizes": 4}}, "inner.sizes must be a list"),
        ({}, "missing setting steps"),
    ],
)
def test_refusals_name_the_key(values, message):
    with pytest.raises(ConfigError, match=message):
        parse(Outer, values)


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_yaml(tmp_path / "missing.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_yaml(tmp_path / "bad.yaml")
