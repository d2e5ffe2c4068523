"""What every adapter kind promises, over every registered name."""

import copy

import pytest
import torch
from bases import LAYERS, adapt, make_layer, perturb, relative
from torch import nn

from dora_diffusion.errors import AdapterError
from dora_diffusion.registry import ADAPTERS

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", ADAPTERS)
class TestEveryKindAndLayer:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_is_the_base_bit_for_bit_before_training(self, kind, layer, dtype):
        model, x = make_layer(layer, dtype)
        expected = model(x)
        adapt(model, kind)
        assert torch.equal(model(x), expected)
        with torch.no_grad():
            assert torch.equal(model(x), expected)

    @pytest.mark.parametrize(
        "first, then",
        [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float16), (torch.float16, torch.float32)],
    )
    def test_is_the_base_bit_for_bit_after_a_cast(self, kind, layer, first, then):
        model, x = make_layer(layer, first)
        plain = copy.deepcopy(model).to(then)
        adapt(model, kind)
        model(x)  # prepared for the old precision
        model.to(then)
        assert torch.equal(model(x.to(then)), plain(x.to(then)))

    def test_parameters_stay_float32(self, kind, layer):
        model, x = make_layer(layer, torch.bfloat16)
        adapter = adapt(model, kind)
        model.to(torch.float16)
        model(x.half()).float().sum().backward()
        for buffer in adapter.buffers:
            assert buffer.parameter.dtype == torch.float32
            assert buffer.parameter.grad.dtype == torch.float32

    def test_live_equals_merged(self, kind, layer):
        model, x = make_layer(layer)
        adapter = perturb(adapt(model, kind))
        live = model(x)
        adapter.merge()
        assert relative(model(x), live) <= 1e-5
        assert relative(live, perturbed_base(layer)(x)) > 1e-3, (
            "the adapter changes nothing: the comparison proves nothing"
        )

    def test_unmerge_restores_the_bytes(self, kind, layer):
        for dtype in DTYPES:
            model, x = make_layer(layer, dtype)
            weight = model[0].weight.detach().clone()
            adapter = perturb(adapt(model, kind))
            live = model(x)
            adapter.merge()
            assert not torch.equal(model[0].weight, weight)
            adapter.unmerge()
            assert torch.equal(model[0].weight, weight)
            assert torch.equal(model(x), live)

    def test_strength_is_linear_in_the_weights(self, kind, layer):
        model, x = make_layer(layer)
        base = model(x)
        adapter = perturb(adapt(model, kind))
        with torch.no_grad():
            full = model(x)
            adapter.strength = 0
            assert torch.equal(model(x), base)
            adapter.strength = 0.5
            assert relative(model(x), (base + full) / 2) <= 1e-5
            adapter.strength = 1
            assert torch.equal(model(x), full)

    def test_merging_at_a_strength(self, kind, layer):
        model, x = make_layer(layer)
        weight = model[0].weight.detach().clone()
        adapter = perturb(adapt(model, kind))
        adapter.merge(0)
        assert torch.equal(model[0].weight, weight)
        adapter.unmerge()
        adapter.merge(1)
        full = model[0].weight.detach().clone()
        adapter.unmerge()
        adapter.merge(0.25)
        assert relative(model[0].weight - weight, 0.25 * (full - weight)) <= 1e-4

    def test_every_parameter_gets_a_gradient(self, kind, layer):
        model, x = make_layer(layer)
        adapter = perturb(adapt(model, kind))
        model(x).square().sum().backward()
        for buffer in adapter.buffers:
            assert (buffer.parameter.grad != 0).float().mean() > 0.99

    def test_gradients_match_the_merged_weight_under_autograd(self, kind, layer):
        """dx and, for what is not detached, dA and dB: autograd through the dense formula in float64."""
        model, x = make_layer(layer)
        adapter = perturb(adapt(model, kind))
        x.requires_grad_(True)
        out = model(x)
        probe = torch.randn_like(out)
        (out * probe).sum().backward()
        slot = next(iter(adapter.layers.values())).slot
        dense = dense_gradients(model[0].base, slot, x, probe, kind)
        for name, ours in {
            "x": x.grad,
            "A": slot.A.grad,
            "B": slot.B.grad,
            "magnitude": getattr(slot, "magnitude", slot.A).grad,
        }.items():
            if name in dense:
                assert relative(ours, dense[name]) <= 1e-5, name

    def test_a_state_round_trip_gives_the_same_output(self, kind, layer):
        model, x = make_layer(layer)
        state = perturb(adapt(model, kind)).state()
        expected = model(x)
        again, _ = make_layer(layer)
        fresh = adapt(again, kind)
        fresh.load_state(state)
        assert torch.equal(again(x), expected)

    def test_autocast_is_what_the_base_does_under_it(self, kind, layer):
        model, x = make_layer(layer)
        with torch.autocast("cpu", torch.bfloat16):
            expected = model(x)
            adapter = adapt(model, kind)
            assert torch.equal(model(x), expected)
            model(x).float().sum().backward()
        assert all(torch.isfinite(buffer.parameter.grad).all() for buffer in adapter.buffers)


def perturbed_base(layer: str) -> nn.Module:
    return make_layer(layer)[0]


def dense_gradients(module, slot, x, probe, kind):
    """Autograd in float64 through ``W' = m * V / sg(||V||)``, written out for the whole weight."""
    W = module.weight.detach().double()
    A, B = slot.A.detach().double().requires_grad_(), slot.B.detach().double().requires_grad_()
    V = W + slot.scale * (B @ A).view(W.shape)
    leaves = {"A": A, "B": B}
    if kind == "dora":
        m = slot.magnitude.detach().double().requires_grad_()
        norm = V.detach().flatten(1).norm(dim=1)
        V = (m / norm).view(-1, *[1] * (W.ndim - 1)) * V
        leaves["magnitude"] = m
    x = x.detach().double().requires_grad_()
    twin = copy.deepcopy(module).double()
    out = torch.func.functional_call(twin, {"weight": V}, (x,))
    names = ["x", *leaves]
    gradients = torch.autograd.grad((out * probe.double()).sum(), [x, *leaves.values()])
    return dict(zip(names, gradients, strict=True))


@pytest.mark.parametrize("kind", ADAPTERS)
class TestEveryKind:
    def test_merging_twice_is_refused(self, kind):
        model, _ = make_layer("linear")
        adapter = adapt(model, kind)
        adapter.merge()
        with pytest.raises(AdapterError, match="twice"):
            adapter.merge()

    def test_unmerging_what_is_not_merged_is_refused(self, kind):
        model, _ = make_layer("linear")
        with pytest.raises(AdapterError, match="not merged"):
            adapt(model, kind).unmerge()

    def test_training_at_another_strength_is_refused(self, kind):
        model, x = make_layer("linear")
        adapter = adapt(model, kind)
        adapter.strength = 0.5
        with pytest.raises(AdapterError, match="strength 1"):
            model(x)

    def test_switched_off_it_is_the_base_and_keeps_what_is_ready(self, kind):
        """Between a forward and its backward, which reads tensors that ``prepare`` writes."""
        model, x = make_layer("linear")
        base = model(x)
        adapter = perturb(adapt(model, kind))
        recorded = model(x)
        with adapter.switched_off():
            assert adapter.strength == 0
            off = model(x)
        assert torch.equal(off, base) and not off.requires_grad
        assert adapter.strength == 1
        recorded.square().sum().backward()
        between = [buffer.parameter.grad.clone() for buffer in adapter.buffers]
        adapter.zero_grad()
        model(x).square().sum().backward()
        assert all(torch.equal(a, b.parameter.grad) for a, b in zip(between, adapter.buffers, strict=True))

    def test_an_error_while_switched_off_switches_it_on_again(self, kind):
        model, x = make_layer("linear")
        adapter = perturb(adapt(model, kind))
        with torch.no_grad():
            full = model(x)
        with pytest.raises(ZeroDivisionError), adapter.switched_off():
            raise ZeroDivisionError
        with torch.no_grad():
            assert torch.equal(model(x), full)

    def test_strength_zero_is_no_way_to_train(self, kind):
        model, x = make_layer("linear")
        adapter = adapt(model, kind)
        adapter.strength = 0
        with pytest.raises(AdapterError, match="strength 1, got 0"):
            model(x)

    def test_eject_leaves_the_plain_model(self, kind):
        model, x = make_layer("linear")
        plain, expected = model[0], model(x)
        adapter = perturb(adapt(model, kind))
        adapter.merge()
        adapter.eject()
        assert model[0] is plain
        assert torch.equal(model(x), expected)

    def test_optimizer_sees_every_parameter_through_the_flat_buffers(self, kind):
        model, x = make_layer("linear")
        adapter = perturb(adapt(model, kind))
        before = [t.clone() for t in slot_tensors(adapter)]
        optimizer = torch.optim.AdamW([buffer.parameter for buffer in adapter.buffers], lr=1e-2)
        out = model(x)
        out.square().sum().backward()
        optimizer.step()
        for old, new in zip(before, slot_tensors(adapter), strict=True):
            assert (old != new).all()
        assert not torch.equal(model(x), out)

    def test_zero_grad_then_backward_is_not_accumulated(self, kind):
        model, x = make_layer("linear")
        adapter = perturb(adapt(model, kind))
        model(x).sum().backward()
        once = [buffer.parameter.grad.clone() for buffer in adapter.buffers]
        model(x).sum().backward()
        for buffer, gradient in zip(adapter.buffers, once, strict=True):
            torch.testing.assert_close(buffer.parameter.grad, 2 * gradient)
        adapter.zero_grad()
        model(x).sum().backward()
        for buffer, gradient in zip(adapter.buffers, once, strict=True):
            assert torch.equal(buffer.parameter.grad, gradient)

    def test_same_seed_same_start_other_seed_other_start(self, kind):
        from bases import OneModel

        from dora_diffusion.adapters import inject
        from dora_diffusion.config import AdapterConfig

        def start(seed):
            adapter = inject(OneModel(make_layer("linear")[0]), AdapterConfig(kind=kind, targets="."), seed)
            return slot_tensors(adapter)[0].clone()

        assert torch.equal(start(3), start(3))
        assert not torch.equal(start(3), start(4))


def slot_tensors(adapter):
    slots = [layer.slot for layer in adapter.layers.values()]
    names = ["A", "B", "magnitude"] if adapter.variant.has_magnitude else ["A", "B"]
    return [getattr(slot, name).detach() for slot in slots for name in names]
