"""Configurations: differences from a base, types, and refusals that name the key."""

from dataclasses import dataclass

import pytest

from live.config import load_yaml, merge, parse
from live.errors import ConfigError
from live.latents.compact_net import CompactConfig
from training.adversarial import AdversaryConfig, check_adversary
from training.losses import Phase
from training.schedule import Schedule
from training.train_autoencoder import RateConfig


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
        ({"steps": 1, 2: 3, "other": 4}, "unknown setting 2"),
    ],
)
def test_refusals_name_the_key(values, message):
    with pytest.raises(ConfigError, match=message):
        parse(Outer, values)


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_yaml(tmp_path / "missing.yaml")
    (tmp_path / "bad.yaml").write_text("base: 3")
    with pytest.raises(ConfigError, match="must be the name of a file, not 3"):
        load_yaml(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_yaml(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Schedule, {"steps": 0}, "schedule.steps must be 1 or more, not 0"),
        (Schedule, {"steps": 1, "validate_every": 0}, "schedule.validate_every must be 1"),
        (Schedule, {"steps": 1, "lr": -1}, "schedule.lr must be 0 or more"),
        (Schedule, {"steps": 1, "seed": -1}, "schedule.seed must be 0 or more"),
        (Schedule, {"steps": 1, "ema": 5}, "schedule.ema must be 0 or more and below 1, not 5"),
        (Schedule, {"steps": 1, "clip": -1}, "schedule.clip must be above 0"),
        (Phase, {"start": 0, "batch": 1, "crop": 64, "l1": -3}, "phases: l1 must be 0 or more, not -3"),
        (CompactConfig, {"encoder_widths": [64]}, "encoder_widths and encoder_blocks must be 2 or 3 numbers"),
        (RateConfig, {"levels": 0}, "rate.levels must be 1 or more"),
        (RateConfig, {"mu_fine": 0}, "rate.mu_fine must be above 0"),
        (RateConfig, {"step_coarse": -1}, "rate.step_coarse must be above 0"),
    ],
)
def test_values_that_nothing_could_be_trained_with(kind, values, message):
    with pytest.raises(ConfigError, match=message):
        parse(kind, values)


def test_an_adversary_needs_pictures_in_every_phase():
    latents = Phase(start=5, batch=1, crop=64, l1=0, alex=0, latent_mse=1)
    check_adversary(AdversaryConfig(), (latents,))
    with pytest.raises(ConfigError, match="width must be a multiple of 4, not 6"):
        check_adversary(AdversaryConfig(width=6), (latents,))
    with pytest.raises(ConfigError, match="every phase must have one"):
        check_adversary(AdversaryConfig(weight=0.5), (Phase(start=0, batch=1, crop=64), latents))
