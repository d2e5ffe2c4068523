"""A file has its name once it is proved, and not before."""

from dataclasses import replace
from pathlib import Path

import pytest
from slim_models import moved_on, slim_base

from dora_diffusion.errors import FormatError
from dora_diffusion.formats.base_weights import LoadedBase
from dora_diffusion.formats.verify import readers_of, write_proved
from dora_diffusion.registry import FORMATS


@pytest.fixture(scope="module")
def model():
    return slim_base("sd1")


@pytest.fixture(scope="module")
def state(model):
    return moved_on(model, targets="attn")


class Forgetful:
    """A format whose writer loses what ``lose`` says."""

    def __init__(self, name: str, lose):
        self.name, self._lose = name, lose

    def write(self, state, path, base=None, precision="fp32") -> None:
        FORMATS.load(self.name).write(self._lose(state), path, base, precision)


def without_a_layer(state):
    return replace(state, layers=dict(list(state.layers.items())[1:]))


def with_a_stretched_magnitude(state):
    name, layer = next(iter(state.layers.items()))
    return replace(state, layers=state.layers | {name: replace(layer, magnitude=layer.magnitude * 1.00001)})


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_proved_file_is_the_writers_own(name: str, model, state, tmp_path: Path) -> None:
    form = FORMATS.load(name)
    if not readers_of(name):
        return
    target, plain = tmp_path / f"a{form.suffix}", tmp_path / "plain" / f"a{form.suffix}"
    found = write_proved(form, state, target, LoadedBase(model))
    assert [one.reader for one in found] == list(readers_of(name)) and all(one.is_right for one in found)
    form.write(state, plain, LoadedBase(model))
    files = [target] if target.is_file() else sorted(path for path in target.rglob("*") if path.is_file())
    for file in files:
        assert file.read_bytes() == (plain / file.relative_to(target) if target.is_dir() else plain).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([target.name, "plain"])


@pytest.mark.parametrize("lose", [without_a_layer, with_a_stretched_magnitude])
@pytest.mark.parametrize("name", ["diffusers", "kohya", "comfyui", "dual", "peft"])
def test_a_wrong_file_is_not_left_under_its_name(name: str, lose, model, state, tmp_path: Path) -> None:
    form = FORMATS.load(name)
    target = tmp_path / f"a{form.suffix}"
    if form.suffix:
        target.write_bytes(b"older")
    with pytest.raises(FormatError, match=f"{name}.*cannot carry this adapter to .*Nothing was written") as caught:
        write_proved(Forgetful(name, lose), state, target, LoadedBase(model))
    assert next(iter(state.layers)) in str(caught.value)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([b"older"] if form.suffix else [])


def test_a_proved_folder_takes_an_older_ones_place(model, state, tmp_path: Path) -> None:
    form = FORMATS.load("peft")
    write_proved(form, state, tmp_path / "a", LoadedBase(model))
    (tmp_path / "a" / "old.txt").write_text("")
    write_proved(form, state, tmp_path / "a", LoadedBase(model))
    assert not (tmp_path / "a" / "old.txt").exists() and (tmp_path / "a" / "unet").is_dir()
