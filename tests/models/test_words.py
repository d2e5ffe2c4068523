"""A new word: where it stands in a prompt, what the text encoders make of it, and that nothing else changes."""

import pytest
import torch
from small_models import FAMILIES, small_pipeline

from dora_diffusion.errors import ModelError
from dora_diffusion.models import BaseModel, load_base
from dora_diffusion.models.words import start_rows, token_names
from dora_diffusion.registry import FAMILIES as FAMILY_FILES

PROMPTS = ["a photo of a red mug", "", "a mug and a teapot on the beach"]


def base_of(family: str, clip_words: bool = False) -> BaseModel:
    return BaseModel("small", FAMILY_FILES.load(family), small_pipeline(family, clip_words=clip_words))


def rows_for(base: BaseModel, count: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    widths = {
        component: getattr(base.pipe, component).get_input_embeddings().embedding_dim
        for component in base.text_encoders()
    }
    return {component: torch.randn(count, width, generator=generator) for component, width in widths.items()}


@torch.no_grad()
def encoded(base: BaseModel, prompts: list[str]) -> dict[str, torch.Tensor]:
    return base.encode_prompts(prompts)


@pytest.mark.parametrize(
    ("prompt", "marked"),
    [
        ("a photo of sks teapot", "a photo of <sks> teapot"),
        ("SKS, sks. (sks) sks's", "<sks>, <sks>. (<sks>) <sks>'s"),
        ("<sks> and sks", "<sks> and <sks>"),
        ("asks skst sks1 my_sks", "asks skst sks1 my_sks"),
        ("", ""),
    ],
)
def test_the_trigger_is_marked_where_it_is_a_word(prompt: str, marked: str) -> None:
    base = base_of("sd1")
    base.learn_word("sks", rows_for(base))
    assert base.marked(prompt) == marked
    base.forget_word()
    assert base.marked(prompt) == prompt


def test_letters_that_mean_something_to_a_regex_are_letters() -> None:
    base = base_of("sd1")
    base.learn_word("r.2+d", rows_for(base))
    assert base.marked("a r.2+d, not rx2+d") == "a <r.2+d>, not rx2+d"


@pytest.mark.parametrize("family", FAMILIES)
def test_other_prompts_are_what_they_were_bit_for_bit(family: str) -> None:
    base = base_of(family)
    before = encoded(base, PROMPTS)
    base.learn_word("sks", rows_for(base))
    for name, value in encoded(base, PROMPTS).items():
        assert torch.equal(value, before[name]), name
    base.forget_word()
    for name, value in encoded(base, ["a sks mug"]).items():
        assert torch.equal(value, encoded(base_of(family), ["a sks mug"])[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_vectors_stand_where_the_word_does(family: str) -> None:
    """Against transformers' own way: an embedding with more rows, and token numbers written out by hand."""
    base, rows = base_of(family), None
    rows = rows_for(base)
    base.learn_word("sks", rows)
    with_word = encoded(base, ["a photo of sks teapot"])
    plain = base_of(family)
    for component, values in rows.items():
        tokenizer = getattr(plain.pipe, component.replace("text_encoder", "tokenizer"))
        tokenizer.add_tokens(["new0", "new1"])
        encoder = getattr(plain.pipe, component)
        encoder.resize_token_embeddings(len(tokenizer))
        with torch.no_grad():
            encoder.get_input_embeddings().weight[-2:] = values
    for name, value in encoded(plain, ["a photo of new0 new1 teapot"]).items():
        assert torch.equal(value, with_word[name]), name
    for name, value in encoded(plain, ["a photo of new0 teapot"]).items():
        assert not torch.equal(value, with_word[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_of_a_prompt_is_still_found(family: str) -> None:
    """Hub configurations say that the end is token 2, which makes transformers look for the highest number."""
    base = base_of(family, clip_words=True)
    for component in base.text_encoders():
        encoder = getattr(base.pipe, component)
        for part in (encoder.config, *encoder.modules()):
            if hasattr(part, "eos_token_id"):
                part.eos_token_id = 2
    before = {c: pooled(base, c, PROMPTS) for c in base.text_encoders()}
    base.learn_word("sks", rows_for(base))
    for component in base.text_encoders():
        assert torch.equal(pooled(base, component, PROMPTS), before[component])
        hidden, at_end = hidden_and_pooled(base, component, "a sks mug")
        assert torch.allclose(at_end, hidden[:, 5], rtol=1e-5, atol=1e-6)  # start, a, <sks>, <sks>_1, mug, end


@torch.no_grad()
def pooled(base: BaseModel, component: str, prompts: list[str]) -> torch.Tensor:
    from dora_diffusion.models.pipelines import token_ids

    tokens = token_ids(base.pipe, component, [base.marked(prompt) for prompt in prompts])
    return getattr(base.pipe, component)(tokens, output_hidden_states=True)[0]


@torch.no_grad()
def hidden_and_pooled(base: BaseModel, component: str, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
    from dora_diffusion.models.pipelines import token_ids

    encoder = getattr(base.pipe, component)
    found = encoder(token_ids(base.pipe, component, [base.marked(prompt)]))
    if hasattr(found, "text_embeds"):
        return encoder.text_projection(found.last_hidden_state), found.text_embeds
    return found.last_hidden_state, found.pooler_output


def test_a_second_word_takes_the_place_of_the_first() -> None:
    base = base_of("sd1")
    tokenizer, embedding = base.pipe.tokenizer, base.pipe.text_encoder.get_input_embeddings()
    base.learn_word("sks", rows_for(base, 3))
    base.learn_word("bop", rows_for(base, 1))
    assert base.marked("sks bop") == "sks <bop>"
    assert set(base.pipe.tokenizer.get_added_vocab()) - set(tokenizer.get_added_vocab()) == {"<bop>"}
    base.forget_word()
    assert base.pipe.tokenizer is tokenizer and base.pipe.text_encoder.get_input_embeddings() is embedding


def test_a_cast_reaches_the_frozen_part_alone() -> None:
    base = base_of("sd1")
    base.learn_word("sks", rows_for(base))
    names = set(base.pipe.text_encoder.state_dict())
    assert names == set(base_of("sd1").pipe.text_encoder.state_dict())
    base.to("cpu", torch.bfloat16)
    embedding = base.pipe.text_encoder.get_input_embeddings()
    assert (embedding.weight.dtype, embedding.rows.dtype) == (torch.bfloat16, torch.float32)
    assert encoded(base, ["sks"])["encoder_hidden_states"].dtype == torch.bfloat16


def test_the_start_is_the_mean_of_the_words_given() -> None:
    base = base_of("sd1")
    weight = base.pipe.text_encoder.get_input_embeddings().weight
    numbers = base.pipe.tokenizer("red mug", add_special_tokens=False).input_ids
    (one,) = start_rows(base.pipe, ["text_encoder"], "red mug", 1, seed=0)["text_encoder"]
    assert len(numbers) == 2 and torch.allclose(one, weight[numbers].mean(0))
    three = start_rows(base.pipe, ["text_encoder"], "red mug", 3, seed=0)["text_encoder"]
    again = start_rows(base.pipe, ["text_encoder"], "red mug", 3, seed=0)["text_encoder"]
    other = start_rows(base.pipe, ["text_encoder"], "red mug", 3, seed=1)["text_encoder"]
    assert torch.equal(three, again) and not torch.equal(three, other)
    assert len({tuple(row.tolist()) for row in three}) == 3
    assert (three - one).std() == pytest.approx(0.1 * float(weight.std()), rel=0.5)


def test_what_does_not_fit_is_refused() -> None:
    base = base_of("sd1")
    with pytest.raises(ModelError, match="16"):
        base.learn_word("sks", {"text_encoder": torch.zeros(1, 24)})
    with pytest.raises(ModelError, match="text_encoder_2, which this base has not"):
        base.learn_word("sks", {"text_encoder_2": torch.zeros(1, 24)})
    base.pipe.tokenizer.add_tokens(token_names("sks", 1))
    with pytest.raises(ModelError, match="Choose another --trigger"):
        base.learn_word("sks", rows_for(base))
    assert base.word is None
    with pytest.raises(ModelError, match="new_tokens_init"):
        start_rows(base.pipe, ["text_encoder"], " ", 1, seed=0)


def test_the_embedded_base_learns_words_too() -> None:
    base = load_base("toybox")
    base.learn_word("sks", rows_for(base))
    conditioning = encoded(base, ["a photo of sks mug"])["encoder_hidden_states"]
    assert torch.isfinite(conditioning).all()
