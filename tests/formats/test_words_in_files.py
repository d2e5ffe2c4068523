"""A learnt word goes into every format with a place for one, and comes back; else it lies beside, as an embedding."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moved import moved_state
from safetensors.torch import load_file

from dora_diffusion.adapters import AdapterState, NewWord
from dora_diffusion.config import CombineConfig, ExportConfig, MergeConfig
from dora_diffusion.errors import ConfigError
from dora_diffusion.formats import export, load_adapter, read_safetensors, write_safetensors
from dora_diffusion.formats.facts import facts
from dora_diffusion.formats.tools import combine_files
from dora_diffusion.formats.words import write_embedding
from dora_diffusion.inference import merge
from dora_diffusion.registry import FORMATS

ROWS = torch.randn(2, 256, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[AdapterState, Path]:
    """An adapter of the embedded base with a word of two tokens, and its file."""
    state = replace(moved_state("dora"), word=NewWord("sks", {"text_encoder": ROWS}))
    file = tmp_path_factory.mktemp("taught") / "pytorch_lora_weights.safetensors"
    FORMATS.load("diffusers").write(state, file)
    return state, file


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_takes_the_word_along_or_lays_it_beside(
    name: str, taught: tuple[AdapterState, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    format_ = FORMATS.load(name)
    output = tmp_path / f"exported{format_.suffix}"
    export(ExportConfig(adapter=taught[1], format=name, output=output))
    word = load_adapter(output).word
    beside = tmp_path / "embeddings" / "sks.safetensors"
    if format_.carries_words:
        assert word is not None and word.trigger == "sks" and torch.equal(word.rows["text_encoder"], ROWS)
    else:
        assert word is None and "had 2 new tokens of its own, which are not in this file" in caplog.text
    if name == "diffusers":
        assert not beside.exists()
    else:
        assert torch.equal(load_file(beside)["emb_params"], ROWS)
        assert str(beside) in caplog.text


def test_an_adapter_called_like_its_trigger_is_not_overwritten(
    taught: tuple[AdapterState, Path], tmp_path: Path
) -> None:
    export(ExportConfig(adapter=taught[1], format="kohya", output=tmp_path / "sks.safetensors"))
    assert load_adapter(tmp_path / "sks.safetensors").kind == "dora"
    (tmp_path / "embeddings" / "sks.safetensors").write_bytes((tmp_path / "sks.safetensors").read_bytes())
    with pytest.raises(ConfigError, match="is no embedding of a word"):
        export(ExportConfig(adapter=taught[1], format="kohya", output=tmp_path / "other.safetensors"))


def test_a_bundle_of_onetrainers_is_read(taught: tuple[AdapterState, Path], tmp_path: Path) -> None:
    tensors, header = read_safetensors(taught[1])
    tensors = {key: value for key, value in tensors.items() if "lora_tokens" not in key}
    write_safetensors(tmp_path / "a.safetensors", tensors | {"bundle_emb.bop.string_to_param.*": ROWS}, header)
    word = load_adapter(tmp_path / "a.safetensors").word
    assert word is not None and word.trigger == "bop" and torch.equal(word.rows["text_encoder"], ROWS)


def test_sdxls_embedding_has_both_encoders(tmp_path: Path) -> None:
    file = write_embedding(NewWord("<bop>", {"text_encoder": ROWS, "text_encoder_2": 2 * ROWS}), tmp_path / "x.pt")
    assert file == tmp_path / "embeddings" / "bop.safetensors"
    found = load_file(file)
    assert torch.equal(found["clip_l"], ROWS) and torch.equal(found["clip_g"], 2 * ROWS)


def test_a_checkpoint_has_the_word_beside_it(taught: tuple[AdapterState, Path], tmp_path: Path) -> None:
    merged = merge(MergeConfig(adapter=taught[1], output_dir=tmp_path / "merged", single_file=True))
    assert merged.name == "merged.safetensors"
    assert torch.equal(load_file(tmp_path / "embeddings" / "sks.safetensors")["emb_params"], ROWS)


def test_a_sum_keeps_one_word_and_says_that_two_do_not_fit(taught: tuple[AdapterState, Path], tmp_path: Path) -> None:
    plain, other = tmp_path / "plain.safetensors", tmp_path / "other.safetensors"
    FORMATS.load("diffusers").write(moved_state("lora"), plain)
    FORMATS.load("diffusers").write(replace(taught[0], word=NewWord("bop", {"text_encoder": ROWS})), other)
    sums = {}
    for name, second in (("one", plain), ("two", other)):
        config = CombineConfig(adapters=[taught[1], second], output=tmp_path / f"{name}.safetensors", rank=4)
        sums[name] = combine_files(config)
    word = load_adapter(sums["one"].path).word
    assert word is not None and word.trigger == "sks" and not any("words" in note for note in sums["one"].notes)
    assert load_adapter(sums["two"].path).word is None
    assert any("several words of their own (sks, bop)" in note for note in sums["two"].notes)


def test_inspect_tells_of_the_tokens(taught: tuple[AdapterState, Path], tmp_path: Path) -> None:
    FORMATS.load("diffusers").write(moved_state("dora"), tmp_path / "plain.safetensors")
    plain, found = facts(tmp_path / "plain.safetensors"), facts(taught[1])
    assert (plain["new_tokens"], found["new_tokens"]) == (None, {"sks": 2})
    assert found["parameters"] - plain["parameters"] == ROWS.numel()
