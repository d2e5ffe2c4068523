"""Help with prompts, and its token counts against transformers' tokenizers."""

import random
import time
from dataclasses import dataclass

import pytest

from dora_diffusion.studio.prompts import check_prompt, distance, inserted, renamed, written_out
from dora_diffusion.studio.tokens import tokenizer_of


@dataclass(frozen=True)
class Named:
    name: str = "Rex"
    class_noun: str = "dog"
    trigger: str = "sks"


REX = Named()


@pytest.mark.parametrize(
    ("prompt", "mentions", "misspelt"),
    [
        ("a photo of sks dog", True, ""),
        ("a photo of SKS dog", True, ""),
        ("a photo of <Rex> on the beach", True, ""),
        ("a photo of < rex >", True, ""),
        ("a photo of a dog", False, ""),
        ("a photo of sls dog", False, "sls"),
        ("a photo of kss dog", False, "kss"),
        ("a photo of s dog", False, ""),
        ("a dog under the sky", False, ""),
        ("masks and tasks", False, ""),
        ("", False, ""),
    ],
)
def test_whether_the_subject_is_mentioned(prompt: str, mentions: bool, misspelt: str) -> None:
    found = check_prompt(prompt, REX)
    assert (found.mentions, found.misspelt) == (mentions, misspelt)
    assert bool(found.hint) == (not mentions and bool(prompt))


@pytest.mark.parametrize(
    ("prompt", "better"),
    [
        ("a photo of sls dog", "a photo of sks dog"),
        ("a photo of a dog on the beach", "a photo of sks dog on the beach"),
        ("The dog in the snow", "sks dog in the snow"),
        ("a photo of Rex in the snow", "a photo of sks dog in the snow"),
        ("an oil painting of a castle", "an oil painting of sks dog, a castle"),
        ("on the beach", "a photo of sks dog on the beach"),
        ("sunset", "a photo of sks dog, sunset"),
        ("", "a photo of sks dog"),
        ("a photo of sks dog", "a photo of sks dog"),
        ("a dogma", "a photo of sks dog, a dogma"),
    ],
)
def test_inserted_the_subject_is_in_it(prompt: str, better: str) -> None:
    assert inserted(prompt, REX) == better
    assert check_prompt(better, REX).mentions and inserted(better, REX) == better


def test_long_triggers_may_be_misspelt_by_two_letters() -> None:
    named = Named(trigger="zwxplo", class_noun="red backpack")
    assert check_prompt("a photo of zxplo on a chair", named).misspelt == "zxplo"
    assert check_prompt("a photo of a zebra", named).misspelt == ""
    assert inserted("a photo of zwxlpo on a chair", named) == "a photo of zwxplo on a chair"


def test_the_name_may_hold_anything() -> None:
    hostile = Named(name=r"R.* (x|\1)", trigger=r"s\1", class_noun="a+b")
    assert written_out(r"see <R.* (x|\1)> and <Rx>", hostile) == r"see s\1 a+b and <Rx>"
    assert r"s\1" in inserted("on a chair", hostile)
    assert written_out("<> <Rex>", Named(name="  ")) == "<> <Rex>"


def test_no_subject_asks_for_nothing() -> None:
    found = check_prompt("a castle", None)
    assert found.mentions and not found.hint and found.sent == "a castle"


@pytest.mark.parametrize(
    ("one", "other", "far"), [("sks", "sls", 1), ("sks", "", 3), ("kitten", "sitting", 3), ("a", "a", 0)]
)
def test_distance(one: str, other: str, far: int) -> None:
    assert distance(one, other) == distance(other, one) == far


def prompts() -> list[str]:
    made = random.Random(0)
    letters = "abc'sd 12é😀.,!-tmÅΩ漢İ_<>\n"
    some = ["it's a DOG's life, we'll 3 1234 don't", "e\u0301 Ⅷ ﬁ İstanbul ²½", "(masterpiece:1.2), 8k!!!", "", " \n\t"]
    return [*some, *("".join(made.choice(letters) for _ in range(40)) for _ in range(200))]


@pytest.mark.parametrize("base", ["toybox", "owner/model"])
def test_tokens_are_counted_as_transformers_does(base: str) -> None:
    from transformers import CLIPTokenizer

    from dora_diffusion.models import resolve
    from dora_diffusion.models.tokenizer import clip_tokenizer

    theirs = (
        CLIPTokenizer.from_pretrained(resolve("toybox"), subfolder="tokenizer")
        if base == "toybox"
        else clip_tokenizer("<|endoftext|>")
    )
    ours = tokenizer_of(base)
    assert ours.length == theirs.model_max_length
    for prompt in prompts():
        assert ours.count(prompt) == len(theirs(prompt).input_ids), prompt


def test_what_is_beyond_the_limit_is_told() -> None:
    found = check_prompt("a photo of a dog " + "on the beach " * 40, None, "owner/model")
    assert found.tokens == 2 + 5 + 120 and found.limit == 77
    kept = found.sent[: -len(found.cut)] if found.cut else found.sent
    assert tokenizer_of("owner/model").count(kept) == 77
    assert "is not read" in found.hint


def test_a_prompt_of_a_thousand_letters_is_counted_at_once() -> None:
    tokenizer = tokenizer_of("owner/model")
    tokenizer.count("warm")
    began = time.perf_counter()
    tokenizer.count("ab" * 500)
    assert time.perf_counter() - began < 1.0


def test_the_class_noun_in_brackets_is_the_subject_too() -> None:
    teapot = Named("teapot 1", "teapot", "sks")
    assert written_out("<Teapot 1> beside <teapot>", teapot) == "sks teapot beside sks teapot"
    assert check_prompt("a photo of <teapot>", teapot).mentions


def test_a_prompt_changes_its_subject_and_only_that() -> None:
    mug = Named("mug 1", "mug", "sks")
    assert renamed("<REX> and a dog, sks  dog", mug, [REX]) == "<mug 1> and a dog, sks mug"
    assert renamed("a photo of sks dog", Named("Bello", "dog"), [REX]) == "a photo of sks dog", "said alike"
    assert renamed("<> sks", mug, [Named("  ", "")]) == "<> sks"
