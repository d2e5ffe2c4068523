"""Switching subjects in one pipeline: only what differs is written, and the base's bytes come back."""

import pytest
import torch
from moved import moved_state

from dora_diffusion.adapters import AdapterState, merged_weights
from dora_diffusion.errors import AdapterError
from dora_diffusion.inference import MergedWeights
from dora_diffusion.models import load_base


def all_bytes(base) -> dict[str, torch.Tensor]:
    return {
        f"{component}.{name}": tensor.clone()
        for component, part in base.adaptable().items()
        for name, tensor in part.state_dict().items()
    }


def changed(before, after) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module")
def first() -> AdapterState:
    return moved_state("dora", seed=1)


@pytest.fixture(scope="module")
def second() -> AdapterState:
    """An adapter that shares only the UNet's layers with the first."""
    whole = moved_state("lora", seed=2)
    return AdapterState(
        "lora",
        {name: layer for name, layer in whole.layers.items() if name.startswith("unet.")},
        "toybox",
        whole.fingerprint,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_back_to_the_base_bit_for_bit_after_many_switches(first, second, dtype):
    base = load_base("toybox", dtype=dtype)
    before = all_bytes(base)
    weights = MergedWeights(base)
    for state, strength in [(first, 1.0), (second, 0.5), (first, 0.3), (first, 1.0), (second, 1.0)]:
        weights.switch(state, strength, key=f"{id(state)}")
        assert changed(before, all_bytes(base))
    weights.switch(None)
    assert not changed(before, all_bytes(base))


def test_after_a_switch_the_weights_are_those_of_a_fresh_merge(first, second, toybox):
    weights = MergedWeights(toybox)
    weights.switch(first, key="first")
    weights.switch(second, key="second")
    fresh = load_base("toybox")
    MergedWeights(fresh).switch(second)
    assert not changed(all_bytes(fresh), all_bytes(toybox))


def test_only_layers_that_differ_are_written(first, second, toybox):
    weights = MergedWeights(toybox)
    assert weights.switch(first, key="first") == len(first.layers)
    assert weights.switch(second, key="second") == len(first.layers), (
        "first's layers are restored, second's lie among them"
    )
    assert weights.switch(None) == len(second.layers)
    assert weights.switch(None) == 0


def test_merged_from_the_kept_base_not_from_merged_weights(first, toybox):
    originals = {name: tensor for name, tensor in all_bytes(toybox).items()}
    weights = MergedWeights(toybox)
    for _ in range(3):
        weights.switch(first, 1.0)
    names = {toybox.layer_name(*name.split(".", 1)): name for name in originals}
    bases = {name: originals[names[f"{name}.weight"]] for name in first.layers}
    now = all_bytes(toybox)
    for name, expected in merged_weights(first, bases):
        assert torch.equal(now[names[f"{name}.weight"]], expected)


def test_a_remembered_adapter_is_not_computed_again(first, toybox, monkeypatch):
    calls = []
    import dora_diffusion.inference.merged_pipeline as module

    real = module.merged_weights
    monkeypatch.setattr(module, "merged_weights", lambda *args: calls.append(1) or real(*args))
    weights = MergedWeights(toybox)
    for _ in range(3):
        weights.switch(first, key="first")
        weights.switch(None)
    assert len(calls) == 1


def test_an_adapter_of_another_shape_is_refused_and_nothing_written(first, toybox):
    name, layer = next(iter(first.layers.items()))
    broken = layer.__class__(layer.A[:, :-1], layer.B, layer.scale, layer.magnitude, layer.weight_shape)
    before = all_bytes(toybox)
    with pytest.raises(AdapterError, match="does not fit"):
        MergedWeights(toybox).switch(AdapterState("dora", {name: broken}, "elsewhere"))
    assert not changed(before, all_bytes(toybox))


def test_another_base_is_warned_about_by_name(first, toybox, caplog):
    with torch.no_grad():
        toybox.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight.mul_(1.1)
    toybox.name = "my-other-base"
    MergedWeights(toybox).switch(first)
    assert "toybox" in caplog.text
    assert "my-other-base" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_files_of_the_same_base_are_not_warned_about(first, dtype, caplog):
    MergedWeights(load_base("toybox", dtype=dtype)).switch(first)
    assert not caplog.text
