"""Files of other tools are read as their makers apply them: diffusers' and PEFT's made by their own code, the others
written here from their rules.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_adapters import Case, case, small_base
from small_models import FAMILIES
from torch import Tensor

from dora_diffusion.adapters import AdapterState, merged_weights
from dora_diffusion.errors import AdapterError, FormatError
from dora_diffusion.formats import load_adapter
from dora_diffusion.formats.base_weights import LoadedBase
from dora_diffusion.formats.names import Layout, kohya, to_original
from dora_diffusion.models.targets import layer_name

Spell = Callable[[str], str]


def worst(state: AdapterState, bases: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The worst layer's ``|ours - theirs| / |theirs - W0|``."""
    ours = dict(merged_weights(state, {name: bases[name] for name in state.layers}))
    assert ours.keys() == theirs.keys()
    return max(float((ours[n] - theirs[n]).norm() / (theirs[n] - bases[n]).norm()) for n in theirs)


# ------------------------------------------------------------------------------------ made by diffusers and PEFT


def adapted_by_peft(family: str, use_dora: bool) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
    """A pipeline with PEFT's adapters in UNet and text encoders, and by layer the base's and PEFT's merged weights."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer

    pipe = copy.deepcopy(small_base(family).pipe)
    torch.manual_seed(3)
    bases, merged = {}, {}
    for part in ("unet", "text_encoder", "text_encoder_2"):
        model = getattr(pipe, part, None)
        if model is None:
            continue
        targets = ["to_q", "to_out.0", "conv1", "ff.net.2"] if part == "unet" else ["q_proj", "fc1"]
        model.add_adapter(
            LoraConfig(
                r=4,
                lora_alpha=6,
                use_dora=use_dora,
                target_modules=targets,
                rank_pattern={targets[0]: 2},
                alpha_pattern={targets[1]: 5},
            )
        )
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.data += 0.1 * torch.randn_like(value)
        for path, module in model.named_modules():
            if isinstance(module, LoraLayer):
                name = layer_name(part, path)
                bases[name] = module.get_base_layer().weight.detach().clone()
                module.merge()
                merged[name] = module.get_base_layer().weight.detach().clone()
                module.unmerge()
    return pipe, bases, merged


@pytest.mark.parametrize("use_dora", [True, False], ids=["dora", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_diffusers_scripts_save_with_their_metadata(family: str, use_dora: bool, tmp_path: Path) -> None:
    from diffusers.training_utils import _collate_lora_metadata
    from peft.utils import get_peft_model_state_dict

    pipe, bases, merged = adapted_by_peft(family, use_dora)
    parts = {name: getattr(pipe, name) for name in ("unet", "text_encoder", "text_encoder_2") if hasattr(pipe, name)}
    layers = {f"{name}_lora_layers": get_peft_model_state_dict(part) for name, part in parts.items()}
    pipe.save_lora_weights(tmp_path, **layers, **_collate_lora_metadata(parts))
    state = load_adapter(tmp_path)
    assert state.kind == ("dora" if use_dora else "lora")
    assert worst(state, bases, merged) <= 1e-4


def test_what_diffusers_saves_without_metadata_has_alpha_equal_to_rank(tmp_path: Path) -> None:
    """As diffusers reads it: the file does not say more."""
    from peft.utils import get_peft_model_state_dict

    pipe, _, _ = adapted_by_peft("sd1", True)
    pipe.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    state = load_adapter(tmp_path)
    assert {layer.scale for layer in state.layers.values()} == {1.0}
    assert {layer.rank for layer in state.layers.values()} == {2, 4}


@pytest.mark.parametrize("use_dora", [True, False], ids=["dora", "lora"])
def test_what_peft_saves(use_dora: bool, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    bases, merged = {}, {}
    pipe = copy.deepcopy(small_base("sdxl").pipe)
    torch.manual_seed(3)
    for part in ("unet", "text_encoder", "text_encoder_2"):
        targets = ["to_k", "conv2"] if part == "unet" else ["v_proj", "fc2"]
        config = LoraConfig(
            r=4, lora_alpha=6, use_dora=use_dora, use_rslora=part == "unet", target_modules=targets,
            rank_pattern={targets[1]: 3}, alpha_pattern={targets[0]: 2},
        )  # fmt: skip
        model = get_peft_model(getattr(pipe, part), config)
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.data += 0.1 * torch.randn_like(value)
        model.save_pretrained(tmp_path / "adapters" / part)
        for path, module in model.get_base_model().named_modules():
            if hasattr(module, "lora_A"):
                name = layer_name(part, path)
                bases[name] = module.get_base_layer().weight.detach().clone()
                module.merge()
                merged[name] = module.get_base_layer().weight.detach().clone()
    state = load_adapter(tmp_path / "adapters")
    assert worst(state, bases, merged) <= 1e-4
    only = load_adapter(tmp_path / "adapters" / "unet")
    assert {name.partition(".")[0] for name in only.layers} == {"unet"}
    same = load_adapter(tmp_path / "adapters" / "text_encoder_2" / "adapter_model.safetensors")
    assert {name.partition(".")[0] for name in same.layers} == {"text_encoder_2"}


def test_a_folder_of_peft_that_does_not_say_what_it_adapts(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    pipe = copy.deepcopy(small_base("sdxl").pipe)
    get_peft_model(pipe.text_encoder, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "mine")
    with pytest.raises(FormatError, match="Call the folder unet, text_encoder or text_encoder_2"):
        load_adapter(tmp_path / "mine")
    get_peft_model(pipe.unet, LoraConfig(target_modules=["to_q"])).save_pretrained(tmp_path / "other")
    assert all(name.startswith("unet.") for name in load_adapter(tmp_path / "other").layers)


# ------------------------------------------------------------------------------------ written from the rules


def spelled_as(how: str, family: str, layout: Layout) -> Spell:
    """A layer's name as a tool writes it."""

    def one_trainer(name: str) -> str:
        component, _, path = name.partition(".")
        if component == "unet":
            return f"unet.{to_original(path, layout)}"
        return f"{'clip_g' if component == 'text_encoder_2' else 'clip_l'}.{path}"

    def with_diffusers_names(name: str) -> str:
        component, _, path = name.partition(".")
        second = "lora_te2" if component == "text_encoder_2" else "lora_te1" if family == "sdxl" else "lora_te"
        return f"{'lora_unet' if component == 'unet' else second}_{path.replace('.', '_')}"

    return {
        "kohya": lambda name: kohya(name, family, layout),
        "diffusers names": with_diffusers_names,
        "OneTrainer": one_trainer,
    }[how]


def kohya_file(
    trained: Case,
    spell: Spell,
    norms: dict[str, Tensor] | None = None,
    norm_key: str = "dora_scale",
    alpha: float = 3.0,
) -> dict[str, Tensor]:
    """``lora_down``, ``lora_up``, alpha and the norms given, of an adapter whose layers all have this alpha."""
    tensors = {}
    for name, layer in trained.state.layers.items():
        key, conv = spell(name), len(layer.weight_shape) == 4
        tensors[f"{key}.lora_down.weight"] = layer.A.view(-1, *layer.weight_shape[1:]) if conv else layer.A
        tensors[f"{key}.lora_up.weight"] = layer.B[:, :, None, None] if conv else layer.B
        if alpha:
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
        if norms is not None:
            tensors[f"{key}.{norm_key}"] = norms[name]
    return {key: tensor.contiguous() for key, tensor in tensors.items()}


def directions(trained: Case, alpha: float) -> dict[str, Tensor]:
    """``V = W0 + alpha / rank * B A`` of every layer."""
    return {
        name: trained.bases[name] + (alpha / layer.rank) * (layer.B @ layer.A).view(layer.weight_shape)
        for name, layer in trained.state.layers.items()
    }


def random_norms(V: dict[str, Tensor], axis: int) -> dict[str, Tensor]:
    """Trained-looking norms along an axis, shaped as LyCORIS does: (out, 1, ...) or (1, in, ...)."""
    torch.manual_seed(5)
    dims = {name: tuple(d for d in range(W.ndim) if d != axis) for name, W in V.items()}
    norms = {name: torch.linalg.vector_norm(W, dim=dims[name], keepdim=True) for name, W in V.items()}
    return {name: norm * (1 + 0.1 * torch.randn_like(norm)) for name, norm in norms.items()}


def decomposed(V: dict[str, Tensor], norms: dict[str, Tensor], axis: int) -> dict[str, Tensor]:
    """LyCORIS' and OneTrainer's ``W' = V * norm / (||V|| + eps)``."""
    merged = {}
    for name, W in V.items():
        dims = tuple(d for d in range(W.ndim) if d != axis)
        merged[name] = W * (norms[name] / (torch.linalg.vector_norm(W, dim=dims, keepdim=True) + 1.19e-7))
    return merged


@pytest.mark.parametrize("how", ["kohya", "diffusers names", "OneTrainer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_doras_per_output_row(family: str, how: str, tmp_path: Path) -> None:
    """LyCORIS since 3.2, OneTrainer with decompose_output_axis."""
    trained = case(family)
    layout = Layout.of(trained.base.weights)
    V = directions(trained, 3.0)
    norms = random_norms(V, 0)
    path = tmp_path / "a.safetensors"
    header = {} if layout == Layout() else {"dora_diffusion.layout": layout.to_text()}
    save_file(kohya_file(trained, spelled_as(how, family, layout), norms), path, header)
    state = load_adapter(path)
    assert state.kind == "dora"
    assert worst(state, trained.bases, decomposed(V, norms, 0)) <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_doras_per_input_column_are_read_with_their_base_as_full_differences(family: str, tmp_path: Path) -> None:
    """LyCORIS before 3.2 and OneTrainer by default; what our algebra lacks is not put into it."""
    trained = case(family)
    V = directions(trained, 3.0)
    norms = random_norms(V, 1)
    path = tmp_path / "a.safetensors"
    save_file(kohya_file(trained, spelled_as("diffusers names", family, Layout()), norms), path)
    with pytest.raises(FormatError, match=r"has norms per input column .* dora-diffusion export --format diff"):
        load_adapter(path)
    state = load_adapter(path, trained.base)
    assert state.kind == "lora" and state.base_name == trained.base.name
    assert worst(state, trained.bases, decomposed(V, norms, 1)) <= 1e-4
    other = LoadedBase(small_base("sd2" if family == "sd1" else "sd1"))
    with pytest.raises(AdapterError, match="whose norms run per input column, needs the base"):
        load_adapter(path, other)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("alpha", [3.0, 0.0], ids=["alpha", "no alpha"])
def test_loras_of_sd_scripts(family: str, alpha: float, tmp_path: Path) -> None:
    """Without an alpha every reader's scale is 1."""
    trained = case(family, "lora")
    layout = Layout.of(trained.base.weights)
    path = tmp_path / "a.safetensors"
    header = {"dora_diffusion.layout": layout.to_text(), "ss_sd_model_name": "v1-5.safetensors"}
    save_file(kohya_file(trained, spelled_as("kohya", family, layout), alpha=alpha), path, header)
    state = load_adapter(path)
    V = directions(trained, alpha) if alpha else {n: trained.bases[n] + _product(trained, n) for n in trained.bases}
    assert state.kind == "lora" and worst(state, trained.bases, V) <= 1e-4


def _product(trained: Case, name: str) -> Tensor:
    layer = trained.state.layers[name]
    return (layer.B @ layer.A).view(layer.weight_shape)


def test_factors_of_eight_bits(tmp_path: Path) -> None:
    trained = case("sd1", "lora", "attn", False)
    tensors = kohya_file(trained, spelled_as("kohya", "sd1", Layout()))
    small = {k: t.to(torch.float8_e4m3fn) if t.ndim > 1 else t for k, t in tensors.items()}
    save_file(small, tmp_path / "a.safetensors")
    state = load_adapter(tmp_path / "a.safetensors")
    for name, layer in state.layers.items():
        assert torch.equal(layer.A, trained.state.layers[name].A.to(torch.float8_e4m3fn).float())
    key = next(key for key, tensor in small.items() if tensor.ndim > 1)
    save_file(
        {**small, key: torch.full(small[key].shape, float("nan")).to(torch.float8_e4m3fn)}, tmp_path / "b.safetensors"
    )
    with pytest.raises(FormatError, match="not finite"):
        load_adapter(tmp_path / "b.safetensors")


def test_what_a_foreign_header_says(tmp_path: Path) -> None:
    trained = case("sd1", "lora", "attn", False)
    header = {"ss_sd_model_name": "v1-5.safetensors", "modelspec.trigger_phrase": "ohwx man"}
    save_file(kohya_file(trained, spelled_as("kohya", "sd1", Layout())), tmp_path / "a.safetensors", header)
    state = load_adapter(tmp_path / "a.safetensors")
    assert state.base_name == "v1-5.safetensors" and state.metadata == {"trigger": "ohwx man"}


def test_ai_toolkits_magnitudes(tmp_path: Path) -> None:
    """Its PEFT layout always has alpha = rank; under kohya's names the alpha is lost, which only a header can mend."""
    trained = case("sd1", "dora", "attn-mlp")
    V = {name: trained.bases[name] + _product(trained, name) for name in trained.bases}
    norms = {name: norm.flatten() for name, norm in random_norms(V, 0).items()}
    merged = decomposed(V, {name: norm[:, None] for name, norm in norms.items()}, 0)
    tensors = {}
    for name, layer in trained.state.layers.items():
        tensors |= {
            f"{name}.lora_A.weight": layer.A,
            f"{name}.lora_B.weight": layer.B,
            f"{name}.magnitude": norms[name],
        }
    save_file(tensors, tmp_path / "peft.safetensors")
    assert worst(load_adapter(tmp_path / "peft.safetensors"), trained.bases, merged) <= 1e-4

    spell = spelled_as("kohya", "sd1", Layout())
    plain = kohya_file(trained, spell, norms, "magnitude", alpha=0.0)
    save_file(plain, tmp_path / "lost.safetensors")
    with pytest.raises(FormatError, match="ai-toolkit's without alphas"):
        load_adapter(tmp_path / "lost.safetensors")
    save_file(plain, tmp_path / "said.safetensors", {"ss_network_dim": "8", "ss_network_alpha": "8"})
    assert worst(load_adapter(tmp_path / "said.safetensors"), trained.bases, merged) <= 1e-4


def test_diffusers_older_spellings(tmp_path: Path) -> None:
    trained = case("sd1", "lora", "attn")
    tensors = {}
    for name, layer in trained.state.layers.items():
        if name.startswith("unet"):
            key = name.replace(".to_", ".processor.to_").replace("to_out.0", "to_out")
            down, up = f"{key}_lora.down.weight", f"{key}_lora.up.weight"
        else:
            key = name.replace("text_model.", "")
            down, up = f"{key}.lora_linear_layer.down.weight", f"{key}.lora_linear_layer.up.weight"
        tensors |= {down: layer.A, up: layer.B}
    save_file(tensors, tmp_path / "old.safetensors")
    V = {name: trained.bases[name] + _product(trained, name) for name in trained.bases}
    assert worst(load_adapter(tmp_path / "old.safetensors"), trained.bases, V) <= 1e-4


def test_differences_of_lycoris_full_training(tmp_path: Path) -> None:
    trained = case("sd1", "dora")
    spell = spelled_as("kohya", "sd1", Layout())
    tensors = {f"{spell(n)}.diff": W - trained.bases[n] for n, W in trained.merged.items()}
    save_file(tensors, tmp_path / "full.safetensors")
    state = load_adapter(tmp_path / "full.safetensors")
    assert state.kind == "lora" and trained.errors(state)[1] <= 1e-5
    tensors[f"{spell(next(iter(trained.bases)))}.diff_b"] = torch.ones(8)
    save_file(tensors, tmp_path / "biases.safetensors")
    with pytest.raises(FormatError, match="belongs to a change of biases"):
        load_adapter(tmp_path / "biases.safetensors")


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
        (json.dumps({"unet.r": 4, "unet.lora_alpha": "many", "unet.use_dora": True}), "no alpha that is a number"),
        (json.dumps({"unet.r": 4, "unet.lora_alpha": 0, "unet.use_dora": True}), "a number above 0 is expected"),
        (json.dumps({"unet.r": 4, "unet.lora_alpha": 4, "unet.use_dora": False}), "contradicts itself"),
        (json.dumps({"text_encoder.r": 4}), "says nothing of unet"),
        (json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": {"(": 3}, "unet.use_dora": True}), "no alpha"),
        (json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": [3], "unet.use_dora": True}), "no alpha"),
    ],
)
def test_damaged_metadata_of_diffusers(metadata: str, told: str, tmp_path: Path) -> None:
    trained = case("sd1", "dora", "attn", False)
    tensors = {}
    for name, layer in trained.state.layers.items():
        tensors |= {f"{name}.lora_A.weight": layer.A, f"{name}.lora_B.weight": layer.B}
        tensors[f"{name}.lora_magnitude_vector"] = layer.magnitude
    save_file(tensors, tmp_path / "a.safetensors", {"lora_adapter_metadata": metadata})
    with pytest.raises(FormatError, match=told):
        load_adapter(tmp_path / "a.safetensors")
