"""Named choices: every one resolves, and a miss helps."""

import pytest

from dora_diffusion import registry
from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import Registry, did_you_mean

REGISTRIES = {name: value for name, value in vars(registry).items() if isinstance(value, Registry)}
PARTS = [(kind, name) for kind, choices in REGISTRIES.items() for name in choices]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_part_resolves(kind: str, name: str) -> None:
    assert REGISTRIES[kind].load(name) is not None


@pytest.mark.parametrize("kind", ["ADAPTERS", "FAMILIES", "ATTENTION_BACKENDS", "FORMATS"])
def test_a_part_goes_by_the_name_it_is_registered_under(kind: str) -> None:
    choices = REGISTRIES[kind]
    assert {name: choices.load(name).name for name in choices} == {name: name for name in choices}


def test_commands_can_be_called() -> None:
    assert all(callable(registry.COMMANDS.load(name)) for name in registry.COMMANDS)


def test_optimizers_are_called_what_they_are_registered_as() -> None:
    assert all(registry.OPTIMIZERS.load(name).name == name for name in registry.OPTIMIZERS)


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_miss_lists_what_is_known_and_what_is_near(kind: str) -> None:
    choices = REGISTRIES[kind]
    name = next(iter(choices))
    for ask in (choices.check, choices.load):
        with pytest.raises(ConfigError) as caught:
            ask(f"{name}x")
        told = str(caught.value)
        assert told.startswith(f"Unknown {choices.kind} '{name}x'; known: ")
        assert told.endswith(f"Did you mean {name!r}?")
        assert all(known in told for known in choices)


def test_a_name_like_nothing_gets_no_guess() -> None:
    assert did_you_mean("zzzz", ["dora", "lora"]) == ""
    with pytest.raises(ConfigError, match=r"known: dora, lora\.$"):
        Registry("adapter kind", {"dora": "a:b", "lora": "a:b"}).check("zzzz")


def test_reading_the_names_imports_nothing() -> None:
    choices = Registry("part", {"a": "no_such_module:x"})
    assert [*choices] == ["a"] and "a" in choices and choices.check("a") == "a" and len(choices) == 1
    with pytest.raises(ModuleNotFoundError):
        choices.load("a")
