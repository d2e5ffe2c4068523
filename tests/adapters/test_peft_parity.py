"""DoRA and LoRA against PEFT's own layers: same A, B, m; outputs and every gradient."""

import copy

import pytest
import torch
from bases import PEFT_LAYERS, adapt, make_layer, only_slot, perturb, relative
from peft import LoraConfig, get_peft_model


def peft_twin(model, slot, use_dora):
    """PEFT's layer with our parameters."""
    twin = get_peft_model(copy.deepcopy(model), LoraConfig(r=4, lora_alpha=4, target_modules=["0"], use_dora=use_dora))
    values = dict(twin.named_parameters())

    def put(part, tensor):
        (name,) = [n for n in values if part in n]
        values[name].data = tensor.detach().clone().view(values[name].shape)
        return name

    return twin, {"A": put("lora_A", slot.A), "B": put("lora_B", slot.B)} | (
        {"magnitude": put("magnitude", slot.magnitude)} if use_dora else {}
    )


@pytest.mark.parametrize("kind", ["dora", "lora"])
@pytest.mark.parametrize("layer", PEFT_LAYERS)
def test_output_and_gradients_equal_pefts(layer, kind):
    model, x = make_layer(layer)
    plain = copy.deepcopy(model)
    adapter = perturb(adapt(model, kind))
    slot = only_slot(adapter)
    twin, names = peft_twin(plain, slot, kind == "dora")

    ours_x, theirs_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours, theirs = model(ours_x), twin(theirs_x)
    assert relative(ours, theirs) <= 1e-5
    assert relative(theirs, plain(x)) > 1e-3, "PEFT's adapter changes nothing: the comparison proves nothing"

    probe = torch.randn_like(ours)
    (ours * probe).sum().backward()
    (theirs * probe).sum().backward()
    assert relative(ours_x.grad, theirs_x.grad) <= 1e-5
    parameters = dict(twin.named_parameters())
    for part, name in names.items():
        gradient = parameters[name].grad
        assert relative(getattr(slot, part).grad, gradient.reshape(getattr(slot, part).shape)) <= 1e-5, part
