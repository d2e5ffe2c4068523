"""``norm_grad: full`` against autograd through the norm, and the gradient's part along V that it takes away."""

import pytest
import torch
from bases import LAYERS, adapt, make_layer, only_slot, perturb, relative


def full_gradients(module, slot, x, probe):
    W = module.weight.detach().double()
    A, B, m = (t.detach().double().requires_grad_() for t in (slot.A, slot.B, slot.magnitude))
    V = W + slot.scale * (B @ A).view(W.shape)
    weight = (m / V.flatten(1).norm(dim=1)).view(-1, *[1] * (W.ndim - 1)) * V
    out = torch.func.functional_call(module.double(), {"weight": weight}, (x.double(),))
    gradients = torch.autograd.grad((out * probe.double()).sum(), [A, B, m])
    module.float()
    return dict(zip(["A", "B", "magnitude"], gradients, strict=True))


@pytest.mark.parametrize("layer", LAYERS)
def test_equals_autograd_also_over_accumulated_batches(layer):
    model, x = make_layer(layer)
    adapter = perturb(adapt(model, norm_grad="full"), size=0.3)
    slot = only_slot(adapter)
    probe = torch.randn_like(model(x))
    for _ in range(2):
        (model(x) * probe).sum().backward()
    detached = slot.B.grad.clone()
    adapter.finish_gradients()
    for name, expected in full_gradients(model[0].base, slot, x, 2 * probe).items():
        assert relative(getattr(slot, name).grad, expected) <= 2e-5, name
    assert relative(slot.B.grad, detached) > 1e-4, "full and detached agree: the test proves nothing"


def test_detached_is_left_alone():
    model, x = make_layer("linear")
    adapter = perturb(adapt(model))
    model(x).square().sum().backward()
    before = [buffer.parameter.grad.clone() for buffer in adapter.buffers]
    adapter.finish_gradients()
    assert all(torch.equal(buffer.parameter.grad, old) for buffer, old in zip(adapter.buffers, before, strict=True))
