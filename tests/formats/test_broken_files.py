"""Valid files, each broken in one way: every way has its own plain message, nothing is loaded, nothing crashes.

A breakage is a function of a seed, which picks the layer, the byte or the value; so a failure names itself.
"""

import json
import pickle
import random
import re
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from small_adapters import case
from test_round_trip import written
from torch import Tensor

from dora_diffusion.adapters import inject_state
from dora_diffusion.errors import AdapterError, FormatError
from dora_diffusion.formats import load_adapter
from dora_diffusion.formats.parts import SUFFIXES

Tensors = dict[str, Tensor]
Header = dict[str, str]
Break = Callable[[Tensors, Header, random.Random], bytes | None]  # None: write the tensors as they now are
SEEDS = (1, 2)


@lru_cache
def valid(name: str, folder: Path) -> tuple[Tensors, Header, bytes]:
    trained = case("sd1", "dora", "attn")
    path = written(name, trained.state, folder, trained.base)
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata()), path.read_bytes()  # noqa: SIM118


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("valid")


def one(tensors: Tensors, chance: random.Random, *ends: str) -> str:
    """A key with one of these ends."""
    return chance.choice(sorted(key for key in tensors if key.endswith(ends)))


DOWN = ("lora_A.weight", "down.weight")
UP = ("lora_B.weight", "up.weight")


def spelled(key: str) -> str:
    return next(key.removesuffix(end) for end in SUFFIXES if key.endswith(end))


def narrower(tensors: Tensors, _: Header, chance: random.Random) -> None:
    key = one(tensors, chance, *UP)
    tensors[key] = tensors[key][:, :-1].contiguous()


def without(*ends: str) -> Break:
    def breaks(tensors: Tensors, _: Header, chance: random.Random) -> None:
        del tensors[one(tensors, chance, *ends)]

    return breaks


def with_value(value: float) -> Break:
    def breaks(tensors: Tensors, _: Header, chance: random.Random) -> None:
        key = one(tensors, chance, *UP, *DOWN)
        tensors[key] = tensors[key].clone()
        tensors[key].view(-1)[chance.randrange(tensors[key].numel())] = value

    return breaks


def with_whole_numbers(tensors: Tensors, _: Header, chance: random.Random) -> None:
    key = one(tensors, chance, *UP)
    tensors[key] = tensors[key].to(torch.int32)


def of_no_rank(tensors: Tensors, _: Header, chance: random.Random) -> None:
    down = one(tensors, chance, *DOWN)
    up = down.replace("lora_A", "lora_B").replace("down.weight", "up.weight")
    tensors[down], tensors[up] = tensors[down][:0], tensors[up][:, :0].contiguous()


def with_part(part: str, shape: tuple[int, ...] = (2, 2)) -> Break:
    def breaks(tensors: Tensors, _: Header, chance: random.Random) -> None:
        tensors[f"{spelled(one(tensors, chance, *UP))}{part}"] = torch.ones(shape)

    return breaks


def with_key(key: str) -> Break:
    def breaks(tensors: Tensors, _: Header, chance: random.Random) -> None:
        tensors[key] = torch.ones(2, 2)

    return breaks


def with_a_layer_twice(tensors: Tensors, _: Header, chance: random.Random) -> None:
    key = one(tensors, chance, "to_q_lora.down.weight", "to_q.lora_A.weight", "to_q.lora_down.weight")
    unet = "diffusion_model" + key.removeprefix("lora_unet").removeprefix("unet")
    tensors[unet] = tensors[key].clone()


def with_alpha(value: Tensor) -> Break:
    def breaks(tensors: Tensors, _: Header, chance: random.Random) -> None:
        tensors[one(tensors, chance, ".alpha")] = value

    return breaks


def with_scale(change: Callable[[Tensor], Tensor]) -> Break:
    def breaks(tensors: Tensors, _: Header, chance: random.Random) -> None:
        key = one(tensors, chance, ".dora_scale")
        tensors[key] = change(tensors[key]).contiguous()

    return breaks


def with_another_axis(tensors: Tensors, _: Header, chance: random.Random) -> None:
    key = one(tensors, chance, "to_q.dora_scale")
    columns = tensors[key.replace("dora_scale", "lora_down.weight")].shape[1]
    tensors[key] = torch.ones(1, columns)


def on_columns(tensors: Tensors, _: Header, chance: random.Random) -> None:
    for key in [key for key in tensors if key.endswith(".dora_scale")]:
        tensors[key] = torch.ones(
            1, next(t for k, t in tensors.items() if k.startswith(spelled(key)) and k.endswith(DOWN)).shape[1]
        )


def with_magnitude(tensors: Tensors, _: Header, chance: random.Random) -> None:
    key = one(tensors, chance, "lora_magnitude_vector.weight")
    tensors[key] = torch.ones(3)


def without_some_magnitudes(tensors: Tensors, _: Header, chance: random.Random) -> None:
    tensors["dora_diffusion.magnitude"] = tensors["dora_diffusion.magnitude"][chance.randrange(1, 9) :].clone()


def saying(key: str, text: str) -> Break:
    def breaks(_: Tensors, header: Header, chance: random.Random) -> None:
        header[key] = text

    return breaks


def having_lost_alphas(tensors: Tensors, header: Header, chance: random.Random) -> None:
    for key in [key for key in tensors if key.endswith(".alpha")]:
        del tensors[key]
    header["ss_network_dim"], header["ss_network_alpha"] = "16", "8"


# On the bytes of a whole file.
def cut(tensors: Tensors, header: Header, chance: random.Random) -> bytes:
    whole = save(tensors, header)
    return whole[: chance.randrange(8, len(whole) - 1)]


def cut_in_the_length(tensors: Tensors, header: Header, chance: random.Random) -> bytes:
    return save(tensors, header)[: chance.randrange(0, 8)]


def with_a_header_of(size: int) -> Break:
    def breaks(tensors: Tensors, header: Header, chance: random.Random) -> bytes:
        return struct.pack("<Q", size + chance.randrange(1000)) + save(tensors, header)[8:]

    return breaks


def with_offsets_that_overlap(tensors: Tensors, header: Header, chance: random.Random) -> bytes:
    whole = save(tensors, header)
    (length,) = struct.unpack("<Q", whole[:8])
    entries = json.loads(whole[8 : 8 + length])
    names = [name for name in entries if name != "__metadata__"]
    entries[chance.choice(names[1:])]["data_offsets"] = entries[names[0]]["data_offsets"]
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + whole[8 + length :]


def a_pickle(tensors: Tensors, header: Header, chance: random.Random) -> bytes:
    return pickle.dumps({"state_dict": list(tensors)})


def empty(tensors: Tensors, header: Header, chance: random.Random) -> None:
    tensors.clear()


EVERY = ("diffusers", "kohya", "comfyui", "dual")
DEEP = "[" * 100_000
BROKEN: list[tuple[str, Break, tuple[str, ...], str]] = [
    ("cut", cut, (*EVERY, "diff"), "is no whole safetensors file"),
    (
        "cut in its first bytes",
        cut_in_the_length,
        EVERY,
        "is no whole safetensors file .*(HeaderTooSmall|header too small)",
    ),
    ("a header of 2^60", with_a_header_of(2**60), EVERY, "is no whole safetensors file .*header too large"),
    ("a header past the end", with_a_header_of(50_000_000), EVERY, "is no whole safetensors file .*invalid header"),
    (
        "overlapping offsets",
        with_offsets_that_overlap,
        EVERY,
        "is no whole safetensors file .*(invalid|incomplete|offset)",
    ),
    ("a pickle called safetensors", a_pickle, EVERY, "is no whole safetensors file"),
    ("no tensors", empty, EVERY, r"is no adapter that can be read here \(first key: none\)"),
    ("narrower", narrower, EVERY, "which do not multiply"),
    ("no rank", of_no_rank, EVERY, "of rank 0, without a number"),
    ("no up", without(*UP), EVERY, "has a .* and no (lora_B|.*up)"),
    ("no down", without(*DOWN), EVERY, "has a .* and no (lora_A|.*down)"),
    ("NaN", with_value(float("nan")), EVERY, "holds values that are not finite"),
    ("infinite", with_value(float("-inf")), EVERY, "holds values that are not finite"),
    ("whole numbers", with_whole_numbers, EVERY, "holds int32 values, not numbers"),
    ("a LoHa's part", with_part(".hada_w1_a"), EVERY, "belongs to a LoHa"),
    ("a Tucker core", with_part(".lora_mid.weight"), EVERY, "Tucker core"),
    ("an unknown part", with_part(".surprise"), EVERY, "surprise is no part of a LoRA or DoRA"),
    (
        "Flux' layer",
        with_key("transformer.single_blocks.0.lora_A.weight"),
        EVERY,
        "is a layer of another kind of model",
    ),
    ("no layer", with_key("lora_unet_nowhere.lora_down.weight"), EVERY, "nowhere is no layer of Stable Diffusion"),
    ("a layer twice", with_a_layer_twice, EVERY, "holds unet.* twice: as"),
    ("a learnt word", with_key("bundle_emb.sks.string_to_param.*"), EVERY, "carries a learnt word"),
    ("a fingerprint that is none", saying("dora_diffusion.fingerprint", "{"), EVERY, "a fingerprint of its base"),
    ("a bottomless fingerprint", saying("dora_diffusion.fingerprint", DEEP), EVERY, "a fingerprint of its base"),
    (
        "mixed",
        without("lora_magnitude_vector.weight"),
        ("diffusers", "dual"),
        "mixes layers with and without a magnitude",
    ),
    ("mixed scales", without("dora_scale"), ("kohya", "comfyui", "dual"), "mixes layers with and without a dora_scale"),
    ("a magnitude too short", with_magnitude, ("diffusers", "dual"), "rows and a magnitude of 3"),
    ("an alpha", with_part(".alpha", ()), ("dual",), "mixes|of a layout without alphas"),
    ("no alpha in one layer", without(".alpha"), ("kohya", "comfyui"), "mixes layers with and without an alpha"),
    ("alphas lost", having_lost_alphas, ("kohya", "comfyui"), "has lost its alphas"),
    ("alpha 0", with_alpha(torch.tensor(0.0)), ("kohya", "comfyui"), "is 0; an alpha is a number above 0"),
    ("alpha -1", with_alpha(torch.tensor(-1.0)), ("kohya", "comfyui"), "is -1; an alpha is a number above 0"),
    ("two alphas", with_alpha(torch.ones(2)), ("kohya", "comfyui"), r"is of shape \[2\]; an alpha is one number"),
    ("1-D scales", with_scale(torch.flatten), ("kohya", "comfyui", "dual"), "which axis it runs along cannot be told"),
    (
        "PEFT's shape",
        with_scale(lambda s: s.reshape(1, -1, 1, 1)),
        ("kohya", "comfyui", "dual"),
        "it fits neither axis",
    ),
    ("a scale too long", with_scale(lambda s: torch.cat([s, s])), ("kohya", "comfyui", "dual"), "it fits neither axis"),
    ("two axes", with_another_axis, ("kohya",), "mixes norms per output row .* and per input column"),
    ("scales of columns", on_columns, ("comfyui", "dual"), "contradicts itself: its magnitudes are per output row"),
    ("magnitudes cut", without_some_magnitudes, ("comfyui",), "is not whole: its 40 layers have"),
    ("a layout that is none", saying("dora_diffusion.layout", "x"), ("kohya", "comfyui", "diff"), "layout is 'x'"),
]
CASES = [
    pytest.param(name, breaks, told, seed, id=f"{name}: {what} ({seed})")
    for what, breaks, names, told in BROKEN
    for name in names
    for seed in SEEDS
]


def broken_file(name: str, breaks: Break, seed: int, valid_in: Path, target: Path) -> Path:
    tensors, header, _ = valid(name, valid_in)
    tensors, header = dict(tensors), dict(header)
    content = breaks(tensors, header, random.Random(seed))
    target.write_bytes(save(tensors, header) if content is None else content)
    return target


@pytest.mark.parametrize(("name", "breaks", "told", "seed"), CASES)
def test_a_broken_file_is_refused(name: str, breaks: Break, told: str, seed: int, folder: Path, tmp_path: Path) -> None:
    path = broken_file(name, breaks, seed, folder, tmp_path / "broken.safetensors")
    with pytest.raises(FormatError, match=told) as caught:
        load_adapter(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 600
    assert not re.search(r"Traceback|KeyError|RuntimeError|<class", message)


def test_there_are_a_hundred_of_them_and_each_rule_has_its_own_message(folder: Path, tmp_path: Path) -> None:
    """Files cut short apart: where one ends, before its tensors or among them, is all there is to say."""
    assert len(CASES) >= 100
    for name in EVERY:
        told: dict[str, str] = {}
        for _, breaks, names, rule in BROKEN:
            if name in names and "no whole safetensors" not in rule:
                path = broken_file(name, breaks, 1, folder, tmp_path / "broken.safetensors")
                with pytest.raises(FormatError) as caught:
                    load_adapter(path)
                told[rule] = str(caught.value)
        assert len(set(told.values())) == len(told)


@pytest.mark.parametrize("name", [*EVERY, "diff"])
def test_the_files_that_are_broken_are_valid_before(name: str, folder: Path, tmp_path: Path) -> None:
    tensors, header, _ = valid(name, folder)
    (tmp_path / "whole.safetensors").write_bytes(save(tensors, header))
    assert case("sd1", "dora", "attn").errors(load_adapter(tmp_path / "whole.safetensors"))[1] <= 1e-4


@pytest.mark.parametrize("ending", [".ckpt", ".bin", ".pt", ".pth", ".pkl"])
def test_a_pickle_is_not_opened(ending: str, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return (tmp_path / "went off").write_text, ("boom",)

    path = tmp_path / f"adapter{ending}"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FormatError, match="is a pickle"):
        load_adapter(path)
    assert not (tmp_path / "went off").exists()


def test_differences_among_factors(folder: Path, tmp_path: Path) -> None:
    tensors, header, _ = valid("kohya", folder)
    key = next(iter(tensors))
    mixed: Mapping[str, Tensor] = {**tensors, f"{spelled(key)}.diff": torch.ones(2, 2)}
    (tmp_path / "a.safetensors").write_bytes(save(dict(mixed), header))
    with pytest.raises(FormatError, match="mixes full differences with other parts"):
        load_adapter(tmp_path / "a.safetensors")
    tensors, header, _ = valid("diff", folder)
    for shape in ((2,), (2, 2, 2), (0, 2)):
        bad = {**tensors, next(iter(tensors)): torch.ones(shape)}
        (tmp_path / "b.safetensors").write_bytes(save(bad, header))
        with pytest.raises(FormatError, match="has two axes, of a convolution four"):
            load_adapter(tmp_path / "b.safetensors")


@pytest.mark.parametrize("name", EVERY)
def test_another_base_is_told_by_its_layers(name: str, folder: Path, tmp_path: Path) -> None:
    """The file is whole; it is the base that does not fit."""
    from small_adapters import small_base

    tensors, header, _ = valid(name, folder)
    (tmp_path / "a.safetensors").write_bytes(save(tensors, header))
    with pytest.raises(AdapterError, match=r"adapter (was made for|does not fit)"):
        inject_state(small_base("sd2"), load_adapter(tmp_path / "a.safetensors"))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("{", r"unet/adapter_config.json cannot be read"),
        ("[]", r"unet/adapter_config.json holds no settings"),
        ('{"peft_type": "LOHA"}', "unet is a LOHA; of PEFT's kinds, LORA is read"),
        ('{"use_dora": false, "lora_alpha": 3}', "contradicts itself: its settings for unet say use_dora=False"),
        ('{"use_dora": true, "lora_alpha": null}', "no alpha that is a number"),
    ],
)
def test_a_folder_of_peft_with_a_broken_configuration(config: str, told: str, tmp_path: Path) -> None:
    trained = case("sd1", "dora", "attn")
    path = written("peft", trained.state, tmp_path)
    (path / "unet" / "adapter_config.json").write_text(config)
    with pytest.raises(FormatError, match=told) as caught:
        load_adapter(path)
    assert "\n" not in str(caught.value)


def test_a_folder_of_peft_without_its_weights(tmp_path: Path) -> None:
    path = written("peft", case("sd1", "dora", "attn").state, tmp_path)
    (path / "text_encoder" / "adapter_model.safetensors").unlink()
    with pytest.raises(FormatError, match="There is no file .*text_encoder/adapter_model.safetensors"):
        load_adapter(path)
