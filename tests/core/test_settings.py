import dataclasses
from typing import Literal

import pytest

from medsynth_tf.core.config import MethodConfig, parse_overrides
from medsynth_tf.core.errors import ConfigError, UnknownNameError
from medsynth_tf.core.registry import METHODS, configs_folder, list_methods, load_any_config, load_config, method_info
from medsynth_tf.core.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class Inner(Settings):
    width: int = setting(3, minimum=1, maximum=8)
    mode: Literal["a", "b"] = setting("a")


@dataclasses.dataclass(frozen=True)
class Outer(Settings):
    rate: float = setting(0.5, above=0.0, below=1.0)
    sizes: tuple[int, ...] = setting((1, 2))
    pair: tuple[float, str] = setting((1.0, "x"))
    name: str | None = setting(None)
    inner: Inner = setting(Inner)


def test_round_trip_and_overrides():
    config = Outer().replace({"inner.width": 5, "sizes": [4], "inner": {"mode": "b"}, "rate": "1e-3"})
    assert config == Outer(rate=1e-3, sizes=(4,), inner=Inner(5, "b"))
    assert Outer.from_dict(config.to_dict()) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.rate = 0.1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"inner.widht": 2}, ["inner.widht", "width"]),
        ({"iner.width": 2}, ["iner", "inner"]),
        ({"inner.width": 9}, ["Inner.width", "9", "<= 8"]),
        ({"inner.width": True}, ["Inner.width", "True", "int"]),
        ({"inner.width": 2.0}, ["Inner.width", "2.0", "int"]),
        ({"inner.mode": "c"}, ["Inner.mode", "'c'", "'a', 'b'"]),
        ({"rate": 1.0}, ["Outer.rate", "< 1.0"]),
        ({"rate": float("nan")}, ["Outer.rate", "finite"]),
        ({"sizes": 3}, ["Outer.sizes", "3"]),
        ({"sizes": [1, "2"]}, ["Outer.sizes[1]", "'2'"]),
        ({"pair": [1.0]}, ["Outer.pair"]),
        ({"name": 3}, ["Outer.name", "3"]),
        ({"inner": 3}, ["inner", "mapping"]),
    ],
)
def test_errors_name_field_value_and_what_is_allowed(overrides, words):
    with pytest.raises(ConfigError) as caught:
        Outer().replace(overrides)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


PROFILES = sorted((file.parent.name, file.stem) for file in configs_folder().glob("*/*.yaml"))


def test_every_method_has_the_papers_profile_and_a_small_one():
    assert {slug for slug, _ in PROFILES} == set(METHODS)
    assert all({(slug, "paper"), (slug, "small")} <= set(PROFILES) for slug in METHODS)


@pytest.mark.parametrize(("slug", "profile"), PROFILES)
def test_profiles_load_and_round_trip_through_yaml(slug, profile, tmp_path):
    config = load_config(slug, profile)
    config.to_yaml(tmp_path / "config.yaml")
    assert load_any_config(tmp_path / "config.yaml") == config
    assert load_config(slug, tmp_path / "config.yaml", {"training.epochs": 77}).training.epochs == 77


def test_wrong_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'semantic_retina'"):
        method_info("semantic_retinas")
    with pytest.raises(ConfigError, match="paper, small"):
        load_config("semantic_retina", "big")
    with pytest.raises(ConfigError, match="training.epochs=3"):
        parse_overrides(["training.epochs"])
    assert parse_overrides(["a.b=1e-3", "c=[1, 2]", "d=null"]) == {"a.b": "1e-3", "c": [1, 2], "d": None}


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [1", "not YAML"), ("- 1", "mapping"), ("seed: 1", "method"), ("method: semantic_retina\nsede: 1", "seed")],
)
def test_bad_files_are_refused(tmp_path, text, words):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_any_config(path)


def test_registry_matches_the_packages():
    for info in list_methods():
        assert issubclass(info.config_class(), MethodConfig)
        assert info.config_class().slug == info.slug
