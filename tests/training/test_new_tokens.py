"""Pivotal tuning: new tokens are trained beside the adapter, go into its file, and come back from it everywhere."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from small_models import small_pipeline
from training_runs import Heard, run_it, small_config, tensors

from dora_diffusion.adapters import inject, inject_state
from dora_diffusion.config import AdapterConfig, MergeConfig, OptimConfig, TrainConfig
from dora_diffusion.errors import AdapterError, ConfigError, DoraError, FormatError, TrainingError
from dora_diffusion.formats import WEIGHTS_NAME, load_adapter, write_safetensors
from dora_diffusion.inference import Drawing, MergedWeights, draw_tensor, merge
from dora_diffusion.inference.generate import apply_adapter
from dora_diffusion.models import load_base
from dora_diffusion.models.words import start_rows
from dora_diffusion.training.events import Note, RunStarted
from dora_diffusion.training.optim import parameter_groups

KEY = "dora_diffusion.lora_tokens.text_encoder"
PROMPT = "a photo of sks teapot on the beach"
DRAWN = Drawing(num_inference_steps=3, guidance_scale=3.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the embedded base that learnt two tokens, and adapters in the text encoder."""
    folder = tmp_path_factory.mktemp("pivotal") / "run"
    optim = {"learning_rate": 1e-2}
    run_it(small_config(folder, 4, adapter={"new_tokens": 2, "train_text_encoder": True}, optim=optim))
    return folder


def started(base_name: str = "toybox") -> torch.Tensor:
    base = load_base(base_name)
    return start_rows(base.pipe, ["text_encoder"], "teapot", 2, seed=0)["text_encoder"]


def test_the_tokens_move_and_are_in_the_file(run: Path) -> None:
    state = load_adapter(run)
    assert state.word is not None and state.word.trigger == "sks"
    rows = state.word.rows["text_encoder"]
    assert torch.equal(rows, load_file(run / WEIGHTS_NAME)[KEY])
    assert rows.dtype == torch.float32 and rows.shape == started().shape
    assert bool((rows != started()).any(1).all())


def test_a_first_step_of_adam_is_the_rate_in_size(tmp_path: Path) -> None:
    """Without decay, whatever the gradient's size: the rate that the tokens were given is the one applied."""
    run_it(small_config(tmp_path / "run", 1, adapter={"new_tokens": 2}, optim={"new_tokens_lr": 3e-3}))
    state = load_adapter(tmp_path / "run")
    assert state.word is not None
    moved = (state.word.rows["text_encoder"] - started()).abs()
    assert moved.median().item() == pytest.approx(3e-3, rel=1e-2)


@pytest.mark.parametrize(("given", "rate"), [({}, 1e-3), ({"new_tokens_lr": 0.5}, 0.5)])
def test_the_rate_and_no_decay(given: dict[str, float], rate: float, toybox) -> None:  # type: ignore[no-untyped-def]
    toybox.learn_word("sks", start_rows(toybox.pipe, ["text_encoder"], "mug", 1, seed=0))
    adapter = inject(toybox, AdapterConfig(rank=2, train_text_encoder=True))
    groups = parameter_groups(adapter, OptimConfig(learning_rate=1e-4, lora_plus_ratio=4, **given))
    (group,) = [g for g, buffer in zip(groups, adapter.buffers, strict=True) if buffer.role == "tokens"]
    assert (group["lr"], group["weight_decay"], group["component"]) == (pytest.approx(rate), 0.0, "text_encoder")


def test_the_gradient_is_that_of_the_vectors_alone(toybox) -> None:  # type: ignore[no-untyped-def]
    """Against autograd through transformers' own embedding with more rows."""
    toybox.freeze()
    rows = start_rows(toybox.pipe, ["text_encoder"], "mug", 2, seed=0)
    toybox.learn_word("sks", rows)
    adapter = inject(toybox, AdapterConfig(rank=2))
    toybox.encode_prompts([PROMPT, "a mug"])["encoder_hidden_states"].square().sum().backward()
    (buffer,) = [b for b in adapter.buffers if b.role == "tokens"]
    plain = load_base("toybox").pipe
    plain.tokenizer.add_tokens(["new0", "new1"])
    plain.text_encoder.resize_token_embeddings(len(plain.tokenizer))
    weight = plain.text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        weight[-2:] = rows["text_encoder"]
    texts = [PROMPT.replace("sks", "new0 new1"), "a mug"]
    tokens = plain.tokenizer(texts, padding="max_length", max_length=32, return_tensors="pt").input_ids
    plain.text_encoder(tokens)[0].square().sum().backward()
    assert torch.allclose(buffer.grad_views()[0], weight.grad[-2:], rtol=1e-5, atol=1e-7)
    assert toybox.pipe.text_encoder.get_input_embeddings().weight.grad is None


def test_live_merged_written_and_plain_diffusers_draw_the_same(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Measured: 3e-6 between any two; without its word the adapter is 0.3 away."""
    state = load_adapter(run)
    live = load_base("toybox")
    inject_state(live, state)
    expected = draw_tensor(live, [PROMPT, "a mug"], [0, 1], DRAWN)

    merged = load_base("toybox")
    MergedWeights(merged).switch(state)
    assert apart(draw_tensor(merged, [PROMPT, "a mug"], [0, 1], DRAWN), expected) < 1e-4

    folder = merge(MergeConfig(adapter=run, output_dir=tmp_path / "merged"))
    assert "the trigger 'sks' is called <sks>: write that" in caplog.text
    written = load_base(str(folder))
    marked = [PROMPT.replace("sks", "<sks>"), "a mug"]
    assert apart(draw_tensor(written, marked, [0, 1], DRAWN), expected) < 1e-4
    assert apart(draw_tensor(written, [PROMPT, "a mug"], [0, 1], DRAWN), expected) > 1e-2

    plain = load_base("toybox")
    plain.pipe = StableDiffusionPipeline.from_pretrained(plain.pipe.config._name_or_path, safety_checker=None)
    plain.pipe.set_progress_bar_config(disable=True)
    plain.pipe.load_lora_weights(run)
    plain.pipe.load_textual_inversion(load_file(run / WEIGHTS_NAME)[KEY], token="<sks>")
    assert apart(draw_tensor(plain, marked, [0, 1], DRAWN), expected) < 1e-4


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("live", [True, False])
def test_strength_scales_the_weights_and_not_the_word(live: bool, run: Path) -> None:
    state, base = load_adapter(run), load_base("toybox")
    apply_adapter(base, state, 0.0, live=live)
    with torch.no_grad():
        found = base.encode_prompts([PROMPT])["encoder_hidden_states"]
        untouched = load_base("toybox")
        untouched.learn_word("sks", state.word.rows)  # type: ignore[union-attr]
        assert torch.equal(found, untouched.encode_prompts([PROMPT])["encoder_hidden_states"])


def test_another_adapter_has_not_the_word_of_the_last(run: Path) -> None:
    state, base = load_adapter(run), load_base("toybox")
    tokenizer = base.pipe.tokenizer
    weights = MergedWeights(base)
    weights.switch(state)
    assert base.word is not None and base.pipe.tokenizer is not tokenizer
    weights.switch(None)
    assert base.word is None and base.pipe.tokenizer is tokenizer


def test_a_trained_adapter_with_a_word_can_be_taken_out_again(run: Path) -> None:
    state, base = load_adapter(run), load_base("toybox")
    with torch.no_grad():
        before = base.encode_prompts([PROMPT])["encoder_hidden_states"]
        adapter = inject_state(base, state)
        again = adapter.state(state.base_name, state.metadata)
        assert again.word is not None and torch.equal(again.word.rows["text_encoder"], state.word.rows["text_encoder"])  # type: ignore[union-attr]
        adapter.eject()
        base.forget_word()
        assert torch.equal(base.encode_prompts([PROMPT])["encoder_hidden_states"], before)


def test_both_text_encoders_of_sdxl_learn_the_word(tmp_path: Path) -> None:
    small_pipeline("sdxl").save_pretrained(tmp_path / "base")
    model = {"pretrained_model_name_or_path": str(tmp_path / "base")}
    heard = Heard()
    run_it(small_config(tmp_path / "run", 3, model=model, adapter={"new_tokens": 1, "rank": 2}), heard)
    state = load_adapter(tmp_path / "run")
    assert state.word is not None and set(state.word.rows) == {"text_encoder", "text_encoder_2"}
    base = load_base(str(tmp_path / "base"))
    start = start_rows(base.pipe, base.text_encoders(), "teapot", 1, seed=0)
    assert all(not torch.equal(rows, start[component]) for component, rows in state.word.rows.items())
    assert "1 new token for 'sks'" in heard.of(RunStarted)[0].facts["adapter"]
    inject_state(base, state)
    expected = draw_tensor(base, ["a sks mug"], [0], DRAWN)

    plain = load_base(str(tmp_path / "base"))
    pipe = plain.pipe
    pipe.load_lora_weights(tmp_path / "run")
    tokens = load_file(tmp_path / "run" / WEIGHTS_NAME)
    for end in ("", "_2"):
        own = {"text_encoder": getattr(pipe, f"text_encoder{end}"), "tokenizer": getattr(pipe, f"tokenizer{end}")}
        pipe.load_textual_inversion(tokens[f"dora_diffusion.lora_tokens.text_encoder{end}"], token="<sks>", **own)
    assert apart(draw_tensor(plain, ["a <sks> mug"], [0], DRAWN), expected) < 1e-4


def test_after_its_share_of_the_run_the_word_stays_as_it_is(tmp_path: Path) -> None:
    optim = {"train_text_encoder_frac": 0.5}
    run = {"checkpointing_steps": 1, "checkpoints_total_limit": 9}
    run_it(small_config(tmp_path / "run", 4, adapter={"new_tokens": 2}, optim=optim, run=run))
    one, two, three, four = (
        tensors(tmp_path / "run" / f"checkpoint-{k}" / "adapter.safetensors")["text_encoder.tokens"]
        for k in range(1, 5)
    )
    assert not torch.equal(one, two) and torch.equal(two, three) and torch.equal(three, four)


def test_a_word_that_no_caption_has_is_refused(tmp_path: Path) -> None:
    data = {"instance_prompt": "a photo of a teapot"}
    with pytest.raises(ConfigError, match="'sks' is in no caption.*New tokens for it would never be learnt"):
        run_it(small_config(tmp_path / "run", 4, data=data, adapter={"new_tokens": 2}))
    assert not (tmp_path / "run").exists()


def test_tokens_that_nothing_depends_on_are_noticed(tmp_path: Path) -> None:
    """In a word of other letters the trigger is no word of its own."""
    data = {"instance_prompt": "a photo of a masksy teapot"}
    with pytest.raises(TrainingError, match=r"text_encoder\.tokens\.0.*had no gradient"):
        run_it(small_config(tmp_path / "run", 4, data=data, adapter={"new_tokens": 2}))


def test_the_cards_lines_draw_the_subject_in_plain_diffusers(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code in the run's README, as it stands there but for the drawing."""
    text = (run / "README.md").read_text(encoding="utf-8")
    assert "Write `<sks>` in a prompt to call it. It has 2 tokens of its own" in text
    code = text.split("```python")[1].split("```")[0].replace("image = pipe", "drawn = lambda text, **how: pipe")
    code = code.replace('("a photo of <sks> teapot").images[0]', "(text, **how)")
    monkeypatch.chdir(run.parent)
    names: dict[str, object] = {}
    exec(compile(code, "card", "exec"), names)
    plain = load_base("toybox")
    plain.pipe = names["pipe"]
    plain.pipe.set_progress_bar_config(disable=True)  # type: ignore[attr-defined]
    ours = load_base("toybox")
    inject_state(ours, load_adapter(run))
    marked = PROMPT.replace("sks", "<sks>")
    assert apart(draw_tensor(plain, [marked], [0], DRAWN), draw_tensor(ours, [PROMPT], [0], DRAWN)) < 1e-4


def test_a_common_word_may_be_the_trigger_of_new_tokens(tmp_path: Path) -> None:
    def notes(adapter: dict[str, int], name: str) -> list[str]:
        heard = Heard()
        run_it(small_config(tmp_path / name, 1, data={"trigger": "red"}, adapter=adapter), heard)
        return [note.message for note in heard.of(Note) if "common word" in note.message]

    assert notes({}, "plain") and not notes({"new_tokens": 1}, "new")


def test_settings_without_use_are_told(tmp_path: Path) -> None:
    heard = Heard()
    run_it(small_config(tmp_path / "run", 1, adapter={"new_tokens_init": "mug"}, optim={"new_tokens_lr": 1e-3}), heard)
    told = " ".join(note.message for note in heard.of(Note))
    assert "new_tokens_lr is not used" in told and "new_tokens_init is not used" in told


@pytest.mark.parametrize("trigger", ["two words", "<>"])
def test_the_trigger_must_be_one_word(trigger: str) -> None:
    with pytest.raises((ConfigError, ValueError), match="one without spaces"):
        TrainConfig(data={"trigger": trigger}, adapter={"new_tokens": 1})


def damaged(run: Path, path: Path, change: dict[str, torch.Tensor | None], header: dict[str, str]) -> Path:
    found = {name: value for name, value in {**load_file(run / WEIGHTS_NAME), **change}.items() if value is not None}
    write_safetensors(path, found, header)
    return path


def test_a_file_whose_word_is_not_whole_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="does not say what word"):
        load_adapter(damaged(run, tmp_path / "a.safetensors", {}, {}))
    header = {"dora_diffusion.trigger": "sks"}
    with pytest.raises(FormatError, match=r"of shapes .*\[256\]"):
        load_adapter(damaged(run, tmp_path / "b.safetensors", {KEY: torch.zeros(256)}, header))
    wide = damaged(run, tmp_path / "c.safetensors", {KEY: torch.zeros(2, 99)}, header)
    with pytest.raises(DoraError, match="99"):
        apply_adapter(load_base("toybox"), load_adapter(wide), 1.0, live=True)


def test_another_word_does_not_go_into_an_adapter(run: Path, toybox) -> None:  # type: ignore[no-untyped-def]
    adapter = inject(toybox, AdapterConfig(rank=4, train_text_encoder=True))
    with pytest.raises(AdapterError, match="vectors nowhere"):
        adapter.load_state(load_adapter(run))
