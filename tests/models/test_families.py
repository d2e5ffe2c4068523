"""Each family as plain diffusers runs it: recognised, encoded, framed, predicted; and no layer adapted for nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import FAMILIES, small_pipeline, weights_of
from torch import nn

from dora_diffusion.adapters import inject
from dora_diffusion.adapters.plan import plan_layers
from dora_diffusion.config import AdapterConfig
from dora_diffusion.errors import AdapterError
from dora_diffusion.models import BaseModel, load_base
from dora_diffusion.registry import FAMILIES as REGISTERED

PROMPTS = ["a photo of sks dog", "", "a dog " * 60]
FRAMING = torch.tensor([[1365.0, 2048, 0, 171, 64, 64], [64, 64, 0, 0, 64, 64], [800, 600, 31, 0, 64, 64]])


@pytest.fixture(scope="module")
def pipes() -> dict[str, Any]:
    """One pipeline of each family; tests do not change them."""
    return {family: small_pipeline(family) for family in FAMILIES}


def base_of(pipe: Any, family: str) -> BaseModel:
    return BaseModel(f"small {family}", REGISTERED.load(family), pipe)


def fresh(family: str) -> BaseModel:
    base = base_of(small_pipeline(family), family)
    base.freeze()
    return base


def predict(base: BaseModel) -> torch.Tensor:
    """The prediction for three prompts and framings, with gradients where adapters are."""
    noisy = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    conditioning = base.encode_prompts(PROMPTS) | base.framing(FRAMING)
    return base.predict(noisy, torch.tensor([5, 400, 990]), conditioning)


def test_every_registered_family_is_tested() -> None:
    assert tuple(REGISTERED) == FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_recognised_and_read(family: str, pipes: dict[str, Any], tmp_path: Path) -> None:
    pipes[family].save_pretrained(tmp_path)
    base = load_base(str(tmp_path))
    ours, theirs = weights_of(base.pipe), weights_of(pipes[family])
    assert base.family.name == family and ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert base.prediction_type == ("v_prediction" if family == "sd2" else "epsilon")


def test_stable_diffusion_2_is_known_by_its_width_too(pipes: dict[str, Any]) -> None:
    """Of a checkpoint that says nothing of linear projections."""
    index = {"_class_name": "StableDiffusionPipeline"}
    for config, expected in [
        ({"cross_attention_dim": 1024}, "sd2"),
        ({"cross_attention_dim": 768}, "sd1"),
        ({}, "sd1"),
    ]:
        found = [name for name in REGISTERED if REGISTERED.load(name).recognises(index, lambda part, c=config: c)]
        assert found == [expected]


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_encoded_as_the_pipeline_does(family: str, pipes: dict[str, Any]) -> None:
    pipe = pipes[family]
    with torch.no_grad():
        ours = base_of(pipe, family).encode_prompts(PROMPTS)
        theirs = pipe.encode_prompt(PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    assert torch.equal(ours["encoder_hidden_states"], theirs[0])
    if family == "sdxl":
        assert torch.equal(ours["text_embeds"], theirs[2]) and ours["text_embeds"].shape == (3, 20)
    assert set(ours) == {"encoder_hidden_states"} | ({"text_embeds"} if family == "sdxl" else set())


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_framing_is_not_told_to_models_that_do_not_ask(family: str, pipes: dict[str, Any]) -> None:
    assert base_of(pipes[family], family).framing(FRAMING) == {}


def test_xl_is_told_of_sizes_and_crops_as_its_pipeline_tells_it(pipes: dict[str, Any]) -> None:
    pipe = pipes["sdxl"]
    base = base_of(pipe, "sdxl")
    expected = pipe._get_add_time_ids((1365, 2048), (0, 171), (64, 64), torch.float32, text_encoder_projection_dim=20)
    assert torch.equal(base.framing(FRAMING)["time_ids"][:1], expected)
    with torch.no_grad():
        ours = predict(base)
        hidden, _, pooled, _ = pipe.encode_prompt(PROMPTS, device="cpu", do_classifier_free_guidance=False)
        noisy = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(3))
        added = {"text_embeds": pooled, "time_ids": FRAMING}
        theirs = pipe.unet(noisy, torch.tensor([5, 400, 990]), hidden, added_cond_kwargs=added).sample
    assert torch.equal(ours, theirs)


def test_sizes_are_told_exactly_in_half_precision() -> None:
    """bfloat16 has no 1365; a UNet that got 1368 would be told of another photo."""
    base = fresh("sdxl")
    base.to("cpu", torch.bfloat16)
    conditioning = base.encode_prompts(PROMPTS) | base.framing(FRAMING)
    arguments = base.family.unet_arguments(conditioning, base.dtype)
    assert torch.equal(arguments["added_cond_kwargs"]["time_ids"], FRAMING)
    assert FRAMING.bfloat16().float()[0, 0] == 1368
    assert arguments["encoder_hidden_states"].dtype == arguments["added_cond_kwargs"]["text_embeds"].dtype == base.dtype
    assert predict(base).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_an_adapter_gets_a_gradient(family: str, kind: str) -> None:
    base = fresh(family)
    adapter = inject(
        base, AdapterConfig(kind=kind, rank=2, targets="full", text_encoder_targets=".", train_text_encoder=True)
    )
    with torch.no_grad():
        for layer in adapter.layers.values():
            layer.slot.B.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))  # A has no gradient while B is 0
    predict(base).square().mean().backward()
    roles = ("A", "B", "magnitude") if kind == "dora" else ("A", "B")
    without = [
        f"{name} {role}"
        for name, layer in adapter.layers.items()
        for role in roles
        if not getattr(layer.slot, role).grad.abs().max() > 0
    ]
    assert without == []
    components = {"unet", "text_encoder"} | ({"text_encoder_2"} if family == "sdxl" else set())
    assert {name.partition(".")[0] for name in adapter.layers} == components


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_that_are_left_out_are_those_without_effect(family: str) -> None:
    """Every Linear of the text encoders is changed in turn: the conditioning notices exactly those that are used."""
    base = fresh(family)
    with torch.no_grad():
        before = base.encode_prompts(PROMPTS)
        for component, root in base.adaptable().items():
            if component == "unet":
                continue
            for path, module in root.named_modules():
                if not isinstance(module, nn.Linear):
                    continue
                kept = module.weight.clone()
                module.weight.add_(torch.randn(kept.shape, generator=torch.Generator().manual_seed(0)))
                after = base.encode_prompts(PROMPTS)
                module.weight.copy_(kept)
                changed = any(not torch.equal(after[name], before[name]) for name in before)
                assert changed == base.is_used(component, path), f"{component}.{path}"


def test_the_last_layer_of_xls_first_text_encoder_is_never_injected(caplog: pytest.LogCaptureFixture) -> None:
    base = fresh("sdxl")
    with caplog.at_level("INFO"):
        plans = plan_layers(base, AdapterConfig(rank=2, train_text_encoder=True))
    layers = {plan.name.split(".self_attn")[0] for plan in plans if plan.component != "unet"}
    assert layers == {
        "text_encoder.text_model.encoder.layers.0",
        "text_encoder.text_model.encoder.layers.1",
        "text_encoder_2.text_model.encoder.layers.0",
        "text_encoder_2.text_model.encoder.layers.1",
    }
    assert (
        "No output depends on 4 layers of text_encoder, first text_encoder.text_model.encoder.layers.2" in caplog.text
    )
    with pytest.raises(
        AdapterError, match="matches only layers of text_encoder that no output of this model depends on"
    ):
        plan_layers(
            base, AdapterConfig(rank=2, train_text_encoder=True, text_encoder_targets=r"encoder\.layers\.2\.self")
        )


def test_the_projection_keeps_its_own_name(pipes: dict[str, Any]) -> None:
    base = base_of(pipes["sdxl"], "sdxl")
    assert base.layer_name("text_encoder_2", "text_projection") == "text_encoder_2.text_projection"
    name = base.layer_name("text_encoder_2", "text_model.encoder.layers.1.mlp.fc1")
    assert name == "text_encoder_2.text_model.encoder.layers.1.mlp.fc1"
