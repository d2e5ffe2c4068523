"""What every registered optimizer keeps to, and what each of them does besides."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import adapt
from small_steps import small_adapter, values, with_gradients
from training_runs import Heard, run_it, small_config

from dora_diffusion.adapters import Adapter
from dora_diffusion.config import OptimConfig
from dora_diffusion.errors import ConfigError, MachineError
from dora_diffusion.registry import OPTIMIZERS
from dora_diffusion.training.events import Note
from dora_diffusion.training.optimizers.kind import OptimizerKind

CPU = torch.device("cpu")
KINDS: dict[str, OptimizerKind] = {name: OPTIMIZERS.load(name) for name in OPTIMIZERS}
# A value other than the default for every setting that some optimizer ignores.
OTHER: dict[str, Any] = {
    "adam_beta1": 0.8,
    "adam_beta2": 0.9,
    "adam_epsilon": 1e-5,
    "prodigy_beta3": 0.5,
    "prodigy_decouple": False,
    "prodigy_use_bias_correction": False,
    "prodigy_safeguard_warmup": False,
    "lora_plus_ratio": 4,
    "magnitude_lr": 1e-3,
    "new_tokens_lr": 1e-3,
    "ema_decay": 0.9,
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> OptimizerKind:
    return KINDS[request.param]


def gradients(seed: int) -> list[torch.Tensor]:
    return [buffer.parameter.grad for buffer in with_gradients(small_adapter(), seed).buffers]  # type: ignore[misc]


def settings_for(kind: OptimizerKind, **settings: Any) -> OptimConfig:
    return OptimConfig(**{"optimizer": kind.name, "learning_rate": 1.0 if kind.name == "prodigy" else 1e-2, **settings})


def one_step(kind: OptimizerKind, **settings: Any) -> Adapter:
    adapter = with_gradients(small_adapter())
    kind.make(adapter, settings_for(kind, **settings)).step()
    return adapter


def test_it_is_registered_under_its_name() -> None:
    assert {name: kind.name for name, kind in KINDS.items()} == {name: name for name in KINDS}


def test_a_step_moves_every_buffer_and_the_adapter_hears_of_it(kind: OptimizerKind) -> None:
    """The layers prepare again only if torch says that a parameter changed."""
    adapter = with_gradients(small_adapter())
    adapter.prepare()
    before, ready = values(adapter), adapter._what_is_ready()
    optimizer = kind.make(adapter, settings_for(kind))
    optimizer.step()
    assert all(not torch.equal(after, before[role]) for role, after in values(adapter).items())
    changed = [now != then for now, then in zip(adapter._what_is_ready(), ready, strict=True)]
    assert changed == [False] + [True] * len(adapter.buffers)  # the strength, and every buffer


def test_it_goes_downhill(kind: OptimizerKind) -> None:
    """``sum(p^2) / 2`` falls: the gradient is the parameter itself."""
    adapter = with_gradients(small_adapter())
    optimizer = kind.make(adapter, settings_for(kind, adam_weight_decay=0))
    sizes = []
    for _ in range(150 if kind.name == "prodigy" else 60):  # it starts from a step size of almost nothing
        for buffer in adapter.buffers:
            assert buffer.parameter.grad is not None
            buffer.parameter.grad.copy_(buffer.parameter.detach())
        optimizer.step()
        sizes.append(sum(float(value.square().sum()) for value in values(adapter).values()))
    assert sizes[-1] < 0.9 * sizes[0]


def test_state_is_float32(kind: OptimizerKind) -> None:
    """Of buffers large enough for 8 bits, theirs are in bytes, with float32 scales."""
    torch.manual_seed(0)
    adapter = with_gradients(small_adapter())
    optimizer = kind.make(adapter, settings_for(kind))
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    assert kept and {value.dtype for value in kept} == {torch.float32}
    assert {buffer.parameter.dtype for buffer in adapter.buffers} == {torch.float32}


def test_magnitudes_do_not_decay(kind: OptimizerKind) -> None:
    decayed, plain = (values(one_step(kind, adam_weight_decay=decay)) for decay in (1e3, 0))
    assert torch.equal(decayed["magnitude"], plain["magnitude"])
    assert not torch.equal(decayed["A"], plain["A"])


@pytest.mark.parametrize(("name", "setting"), [(name, key) for name, k in KINDS.items() for key in sorted(k.ignored)])
def test_what_it_would_ignore_is_refused(name: str, setting: str) -> None:
    config = settings_for(KINDS[name], **{setting: OTHER[setting]})
    with pytest.raises(ConfigError, match=f"optimizer {name} has no use for {setting}, got .* Leave {setting} out"):
        KINDS[name].check(config, CPU)


ELSEWHERE = ("ema_decay", "new_tokens_lr")  # nothing here has an average or a word; test_optim_settings.py runs both
HEEDED = [(name, key) for name, k in KINDS.items() for key in OTHER if key not in (*k.ignored, *ELSEWHERE)]


@pytest.mark.parametrize(("name", "setting"), HEEDED)
def test_what_it_does_not_ignore_changes_its_steps(name: str, setting: str) -> None:
    """Gradients that mostly agree, a rate that moves and some decay, so that every setting has something to act on."""
    ends = []
    for settings in ({}, {setting: OTHER[setting]}):
        kind, adapter = KINDS[name], small_adapter()
        config = settings_for(kind, adam_weight_decay=0.5, **settings)
        kind.check(config, CPU)
        optimizer = kind.make(adapter, config)
        for step in range(10):
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * (0.5 if step == 0 else 1.2)
            for buffer, own in zip(with_gradients(adapter).buffers, gradients(step), strict=True):
                buffer.parameter.grad.add_(own, alpha=0.3)  # type: ignore[union-attr]
            optimizer.step()
        ends.append(torch.cat(list(values(adapter).values())))
    assert not torch.equal(*ends)


def test_a_missing_package_is_told_before_anything_happens(kind: OptimizerKind, tmp_path: Path) -> None:
    if kind.package is None:
        assert kind.name in ("adamw", "adafactor")  # torch's and transformers'
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, kind.package, None)
        with pytest.raises(MachineError, match=r"pip install 'dora-diffusion\[optim\]'") as told:
            run_it(small_config(tmp_path / "run", optim={"optimizer": kind.name}))
    assert f"--optimizer {kind.name}" in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_eight_bits_that_this_device_cannot_do_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes

    def fail(optimizer: object, *_: object) -> None:
        raise NotImplementedError("no kernel for this device\nand a page of reasons")

    monkeypatch.setattr(bitsandbytes.optim.AdamW8bit, "step", fail)
    with pytest.raises(
        MachineError, match=r"cannot step on this cpu \(no kernel for this device\)\. .*--optimizer adamw"
    ):
        KINDS["adamw8bit"].check(OptimConfig(optimizer="adamw8bit"), CPU)


def test_moments_of_a_large_buffer_are_in_eight_bits() -> None:
    adapter = with_gradients(adapt(torch.nn.Sequential(torch.nn.Linear(640, 640)), rank=8))
    optimizer = KINDS["adamw8bit"].make(adapter, OptimConfig())
    optimizer.step()
    dtypes = {buffer.role: optimizer.state[buffer.parameter]["state1"].dtype for buffer in adapter.buffers}
    assert dtypes == {"A": torch.uint8, "B": torch.uint8, "magnitude": torch.float32}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"optimizer": "prodigy", "learning_rate": 1, "text_encoder_lr": 0.5}, "prodigy has one rate for everything"),
        ({"optimizer": "adamw_schedule_free", "lr_scheduler": "cosine"}, "takes the place of a schedule, got .*cosine"),
        ({"optimizer": "adamw_schedule_free", "adam_beta1": 0}, "needs adam_beta1 above 0"),
    ],
)
def test_settings_that_contradict_an_optimizer_are_refused(settings: dict[str, Any], told: str) -> None:
    config = OptimConfig(**settings)
    with pytest.raises(ConfigError, match=told):
        KINDS[config.optimizer].check(config, CPU)


def test_prodigy_takes_one_rate_for_unet_and_text_encoder(tmp_path: Path) -> None:
    """Left out, the text encoder's is not a fifth: the package refuses two rates."""
    settings = {"optimizer": "prodigy", "learning_rate": 1.0}
    for name, given in (("out", {}), ("given", {"text_encoder_lr": 1.0})):
        heard = Heard()
        adapter = {"train_text_encoder": True}
        run_it(small_config(tmp_path / name, 1, optim={**settings, **given}, adapter=adapter), heard)
        assert heard.of(Note) == []


@pytest.mark.parametrize(
    ("optim", "adapter", "told"),
    [
        (
            {"optimizer": "prodigy", "learning_rate": 1e-4},
            {},
            "learning_rate, here 0.0001, scales it: --learning_rate 1",
        ),
        ({"text_encoder_lr": 1e-5}, {}, "text_encoder_lr is not used: the text encoder is not trained"),
        ({"train_text_encoder_frac": 0.5}, {}, "train_text_encoder_frac is not used"),
        ({"adam_weight_decay_text_encoder": 0.5}, {}, "adam_weight_decay_text_encoder is not used"),
        ({"magnitude_lr": 1e-3}, {"kind": "lora"}, "magnitude_lr is not used: a lora has no magnitudes"),
    ],
)
def test_what_has_no_effect_is_said(optim: dict[str, Any], adapter: dict[str, Any], told: str, tmp_path: Path) -> None:
    heard = Heard()
    # A prodigy at such a rate moves nothing in one step, of which a sentinel would tell.
    run_it(small_config(tmp_path / "run", 1, optim=optim, adapter=adapter, run={"sentinels": False}), heard)
    (note,) = heard.of(Note)
    assert told in note.message


def test_adafactor_keeps_a_row_and_a_column_a_layer() -> None:
    """Its first step by hand: ``g / sqrt(R C / mean(R))`` over each layer's matrix, its mean square at most 1."""
    adapter = with_gradients(small_adapter())
    before = {role: [view.clone() for view in buffer_views(adapter, role)] for role in ("A", "B", "magnitude")}
    gradients = {b.role: [view.clone() for view in b.grad_views()] for b in adapter.buffers}
    config = OptimConfig(optimizer="adafactor", learning_rate=1e-2, adam_weight_decay=0.1)
    KINDS["adafactor"].make(adapter, config).step()
    for role in ("A", "B"):
        for g, p, after in zip(gradients[role], before[role], buffer_views(adapter, role), strict=True):
            rows, columns = g.square().mean(-1, keepdim=True), g.square().mean(-2, keepdim=True)
            update = g / (rows * columns / rows.mean(-2, keepdim=True)).sqrt()
            update = update / update.square().mean().sqrt().clamp_min(1)
            torch.testing.assert_close(after, p * (1 - 1e-2 * 0.1) - 1e-2 * update, rtol=1e-5, atol=1e-7)
    for g, p, after in zip(
        gradients["magnitude"], before["magnitude"], buffer_views(adapter, "magnitude"), strict=True
    ):
        torch.testing.assert_close(after, p - 1e-2 * g.sign(), rtol=1e-5, atol=1e-6)


def buffer_views(adapter: Adapter, role: str) -> list[torch.Tensor]:
    return [view for buffer in adapter.buffers if buffer.role == role for view in buffer.data_views()]
