"""Configurations: YAML files that state their differences from a ``base:`` file, read into frozen dataclasses.

An unknown key is an error, so that a misspelt setting never trains a wrong model in silence.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .errors import ConfigError

T = TypeVar("T")


def load_yaml(path: str | Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a YAML mapping; a ``base:`` entry names another file (relative to this one) that it overrides, deeply.

    above: the files that this one is a base of. ConfigError where one cannot be read, or is a base of itself.
    """
    path = Path(path)
    if path.resolve() in above:
        raise ConfigError(f"{path} is a base of itself")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of settings")
    base = values.pop("base", None)
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"base in {path} must be the name of a file, not {base!r}")
    return merge(load_yaml(path.parent / base, (*above, path.resolve())), values) if base else values


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the entries of ``override`` laid over it; nested mappings are merged, anything else replaced."""
    merged = dict(base)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def parse(kind: type[T], values: dict[str, Any], where: str = "") -> T:
    """Build the frozen dataclass ``kind`` from a mapping, recursively; unknown, missing or mistyped keys raise ConfigError."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(fields), key=str)
    if unknown:
        raise ConfigError(f"unknown setting {where}{unknown[0]}; known here: {', '.join(sorted(fields))}")
    parsed = {name: _value(hints[name], value, f"{where}{name}") for name, value in values.items()}
    try:
        return kind(**parsed)
    except TypeError:
        missing = [
            n for n, f in fields.items() if n not in parsed and f.default is f.default_factory is dataclasses.MISSING
        ]
        raise ConfigError(f"missing setting {where}{', '.join(missing)}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a mapping")
        return parse(hint, value, f"{where}.")
    origin = typing.get_origin(hint)
    if origin is tuple:
        item = typing.get_args(hint)[0]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} must be a list")
        return tuple(_value(item, entry, where) for entry in value)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _value(next(arg for arg in typing.get_args(hint) if arg is not type(None)), value, where)
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:  # YAML 1.1 reads 5e-4 as a string
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} must be {hint.__name__}, not {value!r}")
    return value
