"""The factored norms against dense float64, whatever happened before; and caches that must not go stale."""

import pytest
import torch
from bases import LAYERS, adapt, make_layer, only_slot, perturb, relative
from torch import nn

BOUND = {torch.float32: 1e-6, torch.bfloat16: 1e-5, torch.float16: 1e-5}


def dense_norms(slot) -> torch.Tensor:
    """``||W0 + scale B A||`` per row in float64."""
    W = slot.module.weight.detach().double().flatten(1)
    return (W + slot.scale * slot.B.detach().double() @ slot.A.detach().double()).norm(dim=1)


def worst_norm_error(adapter) -> float:
    """Largest relative error of the norms that the gains were made from."""
    adapter.prepare()
    worst = 0.0
    for layer in adapter.layers.values():
        slot = layer.slot
        used = slot.magnitude.detach().double() / slot.gain.double()
        exact = dense_norms(slot)
        worst = max(worst, ((used - exact).abs() / exact).max().item())
    return worst


def several_layers(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(320, 320),
        nn.SiLU(),
        nn.Linear(320, 320),
        nn.SiLU(),
        nn.Linear(320, 768),
        nn.Linear(768, 320, bias=False),
    )
    return model.to(dtype), torch.randn(3, 320, dtype=dtype)


@pytest.mark.parametrize("dtype", BOUND, ids=str)
class TestFactoredNorms:
    def test_through_optimizer_steps_loading_moves_and_merges(self, dtype):
        bound = BOUND[dtype]
        model, x = several_layers(dtype)
        adapter = perturb(adapt(model, rank=16), size=0.02)
        assert worst_norm_error(adapter) <= bound
        optimizer = torch.optim.AdamW([buffer.parameter for buffer in adapter.buffers], lr=1e-2)
        for _ in range(3):
            adapter.zero_grad()
            model(x).float().square().sum().backward()
            optimizer.step()
            assert worst_norm_error(adapter) <= bound
        state = adapter.state()
        perturb(adapter, seed=5)
        assert worst_norm_error(adapter) <= bound
        adapter.load_state(state)
        assert worst_norm_error(adapter) <= bound
        adapter.merge()
        adapter.unmerge()
        assert worst_norm_error(adapter) <= bound
        model.to(torch.float32)
        assert worst_norm_error(adapter) <= BOUND[torch.float32]

    @pytest.mark.parametrize("layer", LAYERS)
    @pytest.mark.parametrize("alpha", [0.5, 4.0, 64.0])
    def test_every_layer_kind_and_scale(self, dtype, layer, alpha):
        model, _ = make_layer(layer, dtype)
        assert worst_norm_error(perturb(adapt(model, alpha=alpha))) <= BOUND[dtype]

    def test_rank_one(self, dtype):
        model, _ = make_layer("linear", dtype)
        assert worst_norm_error(perturb(adapt(model, rank=1))) <= BOUND[dtype]


class TestStaleness:
    """Each of these fails if the named invalidation is taken away."""

    def setup_method(self):
        self.model, self.x = make_layer("linear")
        self.adapter = perturb(adapt(self.model))
        self.before = self.model(self.x).detach()

    def expected(self) -> torch.Tensor:
        slot = only_slot(self.adapter)
        weight = self.adapter.variant.merged_weight(slot.module.weight, slot.A, slot.B, slot.magnitude, slot.scale)
        return nn.functional.linear(self.x, weight, slot.module.bias)

    def check(self):
        after = self.model(self.x)
        assert relative(after, self.before) > 1e-4, "nothing changed: the test proves nothing"
        assert relative(after, self.expected()) <= 1e-5

    @pytest.mark.parametrize("role", ["A", "B", "magnitude"])
    def test_a_flat_buffer_is_written(self, role):
        (buffer,) = [b for b in self.adapter.buffers if b.role == role]
        with torch.no_grad():
            buffer.parameter.mul_(1.3)
        self.check()

    @pytest.mark.parametrize("role", ["A", "B", "magnitude"])
    def test_a_layers_own_parameter_is_written(self, role):
        with torch.no_grad():
            getattr(only_slot(self.adapter), role).mul_(1.3)
        self.check()

    def test_the_frozen_weight_is_written(self):
        with torch.no_grad():
            only_slot(self.adapter).module.weight.add_(0.1)
        self.check()

    def test_the_frozen_weight_is_replaced(self):
        weight = only_slot(self.adapter).module.weight
        weight.data = weight.data.flip(0).clone()
        self.check()

    def test_another_state_is_loaded(self):
        state = self.adapter.state()
        layers = {
            name: layer.__class__(layer.A * 2, layer.B, layer.scale, layer.magnitude, layer.weight_shape)
            for name, layer in state.layers.items()
        }
        self.adapter.load_state(state.__class__(state.kind, layers))
        self.check()

    def test_one_step_prepares_once(self, monkeypatch):
        calls = []
        prepare = self.adapter.variant.__class__.prepare
        monkeypatch.setattr(self.adapter.variant.__class__, "prepare", lambda *args: (calls.append(1), prepare(*args)))
        with torch.no_grad():
            only_slot(self.adapter).B.mul_(1.1)
        for _ in range(4):
            self.model(self.x).sum().backward()
        assert len(calls) == 1


class TestMoves:
    def test_an_untouched_adapter_stays_the_base(self):
        model, x = make_layer("linear", torch.bfloat16)
        adapter = adapt(model)
        model.to(torch.float32)
        with torch.no_grad():
            model[0].base.weight.add_(0.05)  # another base altogether
        assert torch.equal(model(x.float()), nn.functional.linear(x.float(), model[0].base.weight, model[0].base.bias))
        assert torch.equal(only_slot(adapter).gain, torch.ones(40))

    def test_a_trained_magnitude_keeps_its_ratio_and_says_so(self, caplog):
        model, x = make_layer("linear")
        adapter = perturb(adapt(model))
        slot = only_slot(adapter)
        ratio = slot.magnitude.detach() / slot.module.weight.norm(dim=1)
        model.to(torch.bfloat16)
        model(x.bfloat16())
        assert relative(slot.magnitude / slot.module.weight.float().norm(dim=1), ratio) <= 1e-5
        assert "keep their ratio" in caplog.text

    def test_rows_of_zeros_stay_finite(self):
        model, x = make_layer("linear")
        with torch.no_grad():
            model[0].weight[3] = 0
        adapter = adapt(model)
        optimizer = torch.optim.AdamW([buffer.parameter for buffer in adapter.buffers], lr=1e-2)
        for _ in range(3):
            adapter.zero_grad()
            out = model(x)
            out.square().sum().backward()
            optimizer.step()
        assert torch.isfinite(out).all()
        assert all(torch.isfinite(buffer.parameter).all() for buffer in adapter.buffers)
