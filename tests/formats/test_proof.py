"""A file has its name once it is proved, and not before."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from slim_models import moved_on, slim_base

from dora_diffusion.errors import ConfigError, FormatError
from dora_diffusion.formats.base_weights import BaseByName, LoadedBase
from dora_diffusion.formats.verify import readers_of, write_proved
from dora_diffusion.formats.verify.promises import further_readers_of
from dora_diffusion.models import load_base
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
        self.needs_base = FORMATS.load(name).needs_base

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
    state = moved_on(model, "lora", targets="attn") if name == "lora" else state
    target, plain = tmp_path / f"a{form.suffix}", tmp_path / "plain" / f"a{form.suffix}"
    found = write_proved(form, state, target, LoadedBase(model))
    assert [one.reader for one in found] == [*readers_of(name), *further_readers_of(name)]
    assert len(readers_of(name)) > 0 and all(one.is_right for one in found)
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


def test_a_reader_that_may_take_it_is_told_and_does_not_refuse(tmp_path: Path) -> None:
    """A1111 takes toybox's blocks for those of SD 1.x at other places: nobody would load toybox there."""
    model = load_base("toybox")
    state = moved_on(model, "lora")
    found = {
        one.reader: one
        for one in write_proved(FORMATS.load("diff"), state, tmp_path / "a.safetensors", LoadedBase(model))
    }
    assert found["comfyui"].is_right and not found["a1111"].is_right


def test_a_lora_is_proved_without_its_base(model, tmp_path: Path) -> None:
    """Nothing is asked of the base, which may be nowhere."""
    state = moved_on(model, "lora")
    found = write_proved(FORMATS.load("diffusers"), state, tmp_path / "a.safetensors", BaseByName("no/such-base"))
    assert [one.is_right for one in found] == [True]
    name, layer = next(iter(state.layers.items()))
    other = replace(state, layers=state.layers | {name: replace(layer, B=layer.B * 1.001)})
    with pytest.raises(FormatError, match="cannot carry this adapter to diffusers"):
        lose = Forgetful("diffusers", lambda _: other)
        write_proved(lose, state, tmp_path / "b.safetensors", BaseByName("no/such-base"))


def test_somebody_elses_folder_is_not_replaced(model, state, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "photo.jpg").write_bytes(b"a")
    with pytest.raises(ConfigError, match="no folder of peft's"):
        write_proved(FORMATS.load("peft"), state, tmp_path / "a", LoadedBase(model))
    assert (tmp_path / "a" / "photo.jpg").read_bytes() == b"a"


def test_a_proved_folder_takes_an_older_ones_place(model, state, tmp_path: Path) -> None:
    form = FORMATS.load("peft")
    write_proved(form, state, tmp_path / "a", LoadedBase(model))
    (tmp_path / "a" / "old.txt").write_text("")
    write_proved(form, state, tmp_path / "a", LoadedBase(model))
    assert not (tmp_path / "a" / "old.txt").exists() and (tmp_path / "a" / "unet").is_dir()


class Counted(LoadedBase):
    """A base that knows how often its weights were read."""

    def __init__(self, model):
        super().__init__(model)
        self.reads: Counter[str] = Counter()
        weights, reads = self.weights, self.reads

        class Weights(dict):
            def __getitem__(self, name: str):
                reads[name] += 1
                return weights[name]

        self.weights = Weights.fromkeys(weights)


@pytest.mark.parametrize(("name", "times"), [("kohya", 2), ("comfyui", 3), ("dual", 3), ("diff", 3)])
def test_the_base_is_not_read_more_often_than_need_be(name: str, times: int, model, state, tmp_path: Path) -> None:
    """To see whose it is, to write and to prove: it may be larger than memory, so that nothing of it is kept."""
    form, base = FORMATS.load(name), Counted(model)
    write_proved(form, state, tmp_path / "a.safetensors", base)
    assert set(base.reads) == set(state.layers) and set(base.reads.values()) == {times}
