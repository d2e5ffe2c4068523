"""CLIP's tokenizer from its merges: the published numbers."""

import pytest

from dora_diffusion.models.tokenizer import clip_tokenizer


@pytest.mark.parametrize(("pad_token", "number"), [("<|endoftext|>", 49407), ("!", 0)])
def test_prompts_get_the_numbers_everybody_knows(pad_token: str, number: int) -> None:
    tokenizer = clip_tokenizer(pad_token)
    assert len(tokenizer) == 49408 and tokenizer.model_max_length == 77
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("sks").input_ids == [49406, 48136, 49407]
    assert tokenizer("A  PHOTO of a\tcat").input_ids == tokenizer("a photo of a cat").input_ids
    padded = tokenizer("sks", padding="max_length").input_ids
    assert padded == [49406, 48136, 49407] + [number] * 74


def test_any_text_survives() -> None:
    """Letters that no merge knows fall back to bytes, and nothing is unknown."""
    tokenizer = clip_tokenizer("!")
    for text in ("naïve café", "猫の写真", "🙂 <3 3.14"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True).replace(" ", "") == text.replace(
            " ", ""
        )
