"""Plain LoRAs, resized, combined and extracted adapters: against the weights they stand for, in float64."""

from collections.abc import Mapping

import pytest
import torch
from bases import relative
from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState, merged_weights
from dora_diffusion.adapters.changes import needs_base, weight_changes
from dora_diffusion.adapters.combined import bases_differ, combine, combined_changes
from dora_diffusion.adapters.extracted import extract
from dora_diffusion.adapters.fingerprint import fingerprint
from dora_diffusion.adapters.lowrank import RankRule
from dora_diffusion.adapters.plain_lora import plain_lora
from dora_diffusion.adapters.resized import resize
from dora_diffusion.errors import AdapterError

SHAPES = {
    "unet.to_q": (40, 24),
    "unet.ff": (64, 32),
    "unet.conv": (20, 12, 3, 3),
    "text_encoder.text_model.k": (16, 16),
}
BASES = {
    name: torch.randn(shape, generator=torch.Generator().manual_seed(k))
    for k, (name, shape) in enumerate(SHAPES.items())
}


def trained(kind: str, seed: int = 0, size: float = 0.1, rank: int = 6, scale: float = 1.5) -> AdapterState:
    """An adapter of every layer, moved away from its start."""
    generator = torch.Generator().manual_seed(seed + 100)
    layers = {}
    for name, weight in BASES.items():
        A = torch.randn(rank, weight[0].numel(), generator=generator) / weight[0].numel() ** 0.5
        B = torch.randn(len(weight), rank, generator=generator) * size
        gain = 1 + size * torch.randn(len(weight), generator=generator)
        norms = torch.linalg.vector_norm(weight.flatten(1) + scale * B @ A, dim=1)
        layers[name] = LayerState(A, B, scale, gain * norms if kind == "dora" else None, SHAPES[name])
    return AdapterState(kind, layers, "base", fingerprint(BASES), {"trigger": f"sks{seed}"})


def exact_changes(state: AdapterState) -> dict[str, Tensor]:
    """``W' - W0`` in float64, from the formulas: ``m V / ||V|| - W0`` or ``s B A``."""
    changes = {}
    for name, layer in state.layers.items():
        W0 = BASES[name].double().flatten(1)
        V = W0 + layer.scale * layer.B.double() @ layer.A.double()
        if layer.magnitude is not None:
            V = layer.magnitude.double()[:, None] * V / V.norm(dim=1, keepdim=True)
        changes[name] = V - W0
    return changes


def distance(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """``||ours - theirs|| / ||theirs||`` over all layers as one vector."""
    assert ours.keys() == theirs.keys()
    left = sum(float((ours[name].double() - theirs[name].double()).square().sum()) for name in theirs)
    return (left / sum(float(theirs[name].double().square().sum()) for name in theirs)) ** 0.5


@pytest.mark.parametrize("kind", ["dora", "lora"])
def test_changes_are_those_of_the_merged_weights(kind: str) -> None:
    state = trained(kind)
    changes = dict(weight_changes(state, BASES))
    assert distance(changes, exact_changes(state)) < 1e-6
    merged = dict(merged_weights(state, BASES))
    assert all(relative(BASES[name] + changes[name].view(SHAPES[name]), merged[name]) < 1e-6 for name in merged)
    assert needs_base(state) == (kind == "dora")


def test_a_loras_change_needs_no_base() -> None:
    assert distance(dict(weight_changes(trained("lora"), {})), exact_changes(trained("lora"))) < 1e-6


def test_a_base_that_does_not_fit_is_told() -> None:
    state = trained("dora")
    with pytest.raises(AdapterError, match="was made for base: this base has no unet.to_q"):
        dict(weight_changes(state, {}))
    with pytest.raises(AdapterError, match=r"does not fit this base: unet.to_q is \[40, 25\] here and 40x24"):
        dict(weight_changes(state, {**BASES, "unet.to_q": torch.randn(40, 25)}))


class TestPlainLora:
    @pytest.mark.parametrize("rank", [1, 4, 12])
    def test_is_the_nearest_there_is_and_tells_what_it_leaves_out(self, rank: int) -> None:
        state = trained("dora")
        lora, fits = plain_lora(state, BASES, RankRule(rank))
        exact = exact_changes(state)
        best = {name: torch.linalg.svdvals(change)[rank:].norm() for name, change in exact.items()}
        assert lora.kind == "lora" and {layer.rank for layer in lora.layers.values()} == {rank}
        assert {layer.scale for layer in lora.layers.values()} == {1.0}
        for name, change in exact_changes(lora).items():
            left = (change - exact[name]).norm()
            assert left == pytest.approx(float(best[name]), rel=1e-4)
            assert fits.layers[name].residual == pytest.approx(float(left / exact[name].norm()), rel=1e-4)
        assert fits.residual == pytest.approx(distance(exact_changes(lora), exact), rel=1e-4)
        assert lora.metadata == {"trigger": "sks0", "svd_of": "dora", "svd_residual": f"{fits.residual:.4g}"}
        assert lora.base_name == "base" and lora.fingerprint == state.fingerprint

    def test_of_full_rank_is_the_dora_itself(self) -> None:
        lora, fits = plain_lora(trained("dora"), BASES, RankRule(1024))
        assert distance(exact_changes(lora), exact_changes(trained("dora"))) < 2e-6 and fits.residual < 2e-6
        assert {name: layer.rank for name, layer in lora.layers.items()} == {
            name: min(shape[0], torch.Size(shape[1:]).numel()) for name, shape in SHAPES.items()
        }

    def test_of_a_lora_is_that_lora(self) -> None:
        lora, fits = plain_lora(trained("lora"), {}, RankRule(6))
        assert distance(exact_changes(lora), exact_changes(trained("lora"))) < 2e-6 and fits.residual < 2e-6

    def test_tells_how_far_it_is(self) -> None:
        turns: list[tuple[int, int]] = []
        plain_lora(trained("dora"), BASES, RankRule(1), lambda *turn: turns.append(turn))
        assert turns == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def test_a_layer_does_not_depend_on_its_company(self) -> None:
        state = trained("dora")
        alone = AdapterState("dora", {"unet.ff": state.layers["unet.ff"]})
        whole, single = plain_lora(state, BASES, RankRule(3))[0], plain_lora(alone, BASES, RankRule(3))[0]
        assert torch.equal(whole.layers["unet.ff"].A, single.layers["unet.ff"].A)


class TestResize:
    @pytest.mark.parametrize("kind", ["dora", "lora"])
    @pytest.mark.parametrize("rank", [6, 9])
    def test_to_the_same_rank_or_more_changes_nothing_and_can_go_on_learning(self, kind: str, rank: int) -> None:
        state = trained(kind)
        resized, fits = resize(state, BASES, RankRule(rank))
        assert resized.kind == kind and {layer.rank for layer in resized.layers.values()} == {rank}
        assert distance(exact_changes(resized), exact_changes(state)) < 1e-6 and fits.residual < 1e-6
        for name, layer in resized.layers.items():
            assert torch.equal(layer.A[:6], state.layers[name].A) and not layer.B[:, 6:].any()
            assert rank == 6 or layer.A[6:].abs().min() > 0, "a row of zeros on both sides would have no gradient"

    def test_a_lora_keeps_its_best_ranks(self) -> None:
        state = trained("lora")
        resized, fits = resize(state, {}, RankRule(2))
        for name, change in exact_changes(state).items():
            best = torch.linalg.svdvals(change)[2:].norm() / change.norm()
            assert fits.layers[name].residual == pytest.approx(float(best), rel=1e-4)
        assert resized.metadata["resize_residual"] == f"{fits.residual:.4g}"

    def test_a_dora_keeps_its_magnitudes_and_tells_the_error_of_its_weights(self) -> None:
        state = trained("dora", size=0.3)
        resized, fits = resize(state, BASES, RankRule(3))
        for name, layer in resized.layers.items():
            assert layer.magnitude is not None and torch.equal(layer.magnitude, state.layers[name].magnitude)
        exact = exact_changes(state)
        assert fits.residual == pytest.approx(distance(exact_changes(resized), exact), rel=1e-4)

    def test_a_dora_is_nearer_than_by_cutting_its_factors_as_if_it_were_a_lora(self) -> None:
        """What tools do that drop ``dora_scale``, magnitudes put back: rows are not weighed by their gains."""
        state = trained("dora", size=0.3)
        for layer in state.layers.values():
            layer.magnitude[: len(layer.magnitude) // 2] *= 4  # type: ignore[index]
        as_lora = AdapterState(
            "lora", {n: LayerState(x.A, x.B, x.scale, None, x.weight_shape) for n, x in state.layers.items()}
        )
        cut, _ = resize(as_lora, {}, RankRule(3))
        naive = AdapterState(
            "dora",
            {
                n: LayerState(x.A, x.B, x.scale, state.layers[n].magnitude, x.weight_shape)
                for n, x in cut.layers.items()
            },
        )
        exact = exact_changes(state)
        ours = distance(exact_changes(resize(state, BASES, RankRule(3))[0]), exact)
        assert ours < 0.99 * distance(exact_changes(naive), exact)

    def test_by_energy_every_layer_has_its_own_rank(self) -> None:
        _, fits = resize(trained("lora"), {}, RankRule(6, energy=0.8))
        ranks = {fit.rank for fit in fits.layers.values()}
        assert ranks <= set(range(1, 6)) and all(fit.residual <= 0.2**0.5 for fit in fits.layers.values())


class TestCombine:
    def test_the_sum_of_changes_by_weight(self) -> None:
        first, second = trained("dora", 1), trained("lora", 2)
        del second.layers["unet.ff"]
        found = dict(combined_changes([first, second], [1.0, -0.5], BASES))
        one, two = exact_changes(first), exact_changes(second)
        expected = {name: one[name] - 0.5 * two.get(name, torch.zeros_like(one[name])) for name in one}
        assert distance(found, expected) < 1e-6

    def test_loras_add_up_exactly_at_the_sum_of_their_ranks(self) -> None:
        both, fits = combine([trained("lora", 1), trained("lora", 2)], [0.7, 0.4], {}, RankRule(12))
        one, two = exact_changes(trained("lora", 1)), exact_changes(trained("lora", 2))
        assert distance(exact_changes(both), {name: 0.7 * one[name] + 0.4 * two[name] for name in one}) < 2e-6
        assert fits.residual < 2e-6
        assert both.metadata["trigger"] == "sks1, sks2" and both.base_name == "base"
        assert both.fingerprint == fingerprint(BASES)

    def test_what_all_say_alike_is_kept(self) -> None:
        states = [trained("lora", seed) for seed in (1, 2)]
        for state, prompt in zip(states, ("a", "b"), strict=True):
            state.metadata.update({"prediction_type": "v_prediction", "instance_prompt": prompt})
        metadata = combine(states, [1, 1], {}, RankRule(2))[0].metadata
        assert metadata["prediction_type"] == "v_prediction" and "instance_prompt" not in metadata

    def test_the_whole_sum_is_kept_to_the_bit(self) -> None:
        states = [trained("dora", 1), trained("lora", 2)]
        both, fits = combine(states, [0.5, 2.0], BASES, None)
        for name, change in combined_changes(states, [0.5, 2.0], BASES):
            layer = both.layers[name]
            assert torch.equal(layer.B @ layer.A, change) and layer.rank == min(change.shape)
        assert fits.residual == 0

    def test_what_is_left_out_is_told(self) -> None:
        states = [trained("dora", 1), trained("dora", 2)]
        both, fits = combine(states, [1.0, 1.0], BASES, RankRule(4))
        exact = [exact_changes(state) for state in states]
        total = {name: exact[0][name] + exact[1][name] for name in exact[0]}
        assert fits.residual == pytest.approx(distance(exact_changes(both), total), rel=1e-4) and fits.residual > 0.1

    def test_adapters_of_different_models_are_refused(self) -> None:
        other = trained("lora")
        layer = other.layers["unet.to_q"]
        other.layers["unet.to_q"] = LayerState(layer.A[:, 1:], layer.B, 1.0, None, (40, 23))
        with pytest.raises(AdapterError, match=r"of different models: unet.to_q is \[40, 24\] in one and \[40, 23\]"):
            dict(combined_changes([trained("lora"), other], [1, 1], {}))

    def test_bases_are_told_apart_by_their_fingerprints(self) -> None:
        near = {name: [norm * 1.0005 for norm in norms] for name, norms in fingerprint(BASES).items()}
        far = {name: [norm * 1.01 for norm in norms] for name, norms in fingerprint(BASES).items()}
        assert not bases_differ(fingerprint(BASES), near) and not bases_differ(fingerprint(BASES), {})
        assert bases_differ(fingerprint(BASES), far)


class TestExtract:
    @pytest.mark.parametrize("kind", ["dora", "lora"])
    def test_finds_an_adapter_again(self, kind: str) -> None:
        """What was made by a DoRA of rank 6 is one of rank 6: the turns find its gains."""
        state = trained(kind)
        tuned = dict(merged_weights(state, BASES))
        found, fits = extract(kind, BASES, BASES, tuned, RankRule(6))
        assert found.kind == kind and found.fingerprint == fingerprint(BASES)
        assert fits.residual < (0.02 if kind == "dora" else 1e-5)
        assert distance(exact_changes(found), exact_changes(state)) == pytest.approx(fits.residual, rel=0.01, abs=1e-6)

    def test_a_dora_has_the_tuned_row_norms(self) -> None:
        tuned = {name: weight * 1.2 + 0.1 * torch.randn_like(weight) for name, weight in BASES.items()}
        found, _ = extract("dora", BASES, BASES, tuned, RankRule(2))
        for name, merged in merged_weights(found, BASES):
            expected = tuned[name].double().flatten(1).norm(dim=1)
            assert torch.allclose(merged.double().flatten(1).norm(dim=1), expected, rtol=1e-6)

    def test_a_dora_says_more_than_a_lora_of_its_rank_where_norms_moved(self) -> None:
        generator = torch.Generator().manual_seed(0)
        tuned = {
            name: weight * (1 + 0.1 * torch.randn(len(weight), *[1] * (weight.ndim - 1), generator=generator))
            for name, weight in BASES.items()
        }
        dora, lora = (extract(kind, BASES, BASES, tuned, RankRule(2))[1].residual for kind in ("dora", "lora"))
        assert dora < 1e-4 and lora > 0.5

    def test_layers_that_tuning_left_alone_are_left_out(self) -> None:
        tuned = {**BASES, "unet.ff": BASES["unet.ff"] + 1}
        assert list(extract("lora", BASES, BASES, tuned, RankRule(2))[0].layers) == ["unet.ff"]
        with pytest.raises(AdapterError, match="have the same weights in every layer"):
            extract("dora", BASES, BASES, BASES, RankRule(2))

    def test_a_row_that_was_switched_off_stays_finite(self) -> None:
        tuned = {name: weight.clone() for name, weight in BASES.items()}
        for weight in tuned.values():
            weight[0] = 0
        found, fits = extract("dora", BASES, BASES, tuned, RankRule(4))
        assert fits.residual < 1e-3
        for name, merged in merged_weights(found, BASES):
            assert torch.isfinite(merged).all() and not merged[0].any(), name

    def test_two_kinds_of_models_are_refused(self) -> None:
        with pytest.raises(
            AdapterError, match=r"of different kinds: unet.to_q is \[40, 24\] in one and \[4\] in the o"
        ):
            extract("lora", BASES, BASES, {**BASES, "unet.to_q": torch.ones(4)}, RankRule(2))
