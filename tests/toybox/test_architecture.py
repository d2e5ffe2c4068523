"""The parts of the embedded base: sizes, words, and files that plain diffusers reads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from dora_diffusion.errors import ModelError
from dora_diffusion.models import load_base
from dora_diffusion.toybox import architecture
from dora_diffusion.toybox.words import SCENES, STYLES, TRIGGERS, vocabulary

LIMITS = {"vae": 7_000_000, "text_encoder": 6_750_000, "unet": 27_000_000}
MOST_BYTES = 44_000_000 - 3_400_000  # the eye gets the rest


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return architecture.tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def pipe(words: Any) -> Any:
    torch.manual_seed(0)
    return architecture.pipeline(
        architecture.autoencoder(), architecture.text_encoder(len(words)), words, architecture.unet()
    )


@pytest.fixture(scope="module")
def saved(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline") / "model"
    architecture.save(pipe, folder)
    return folder


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_word_of_the_world_is_one_token(words: Any) -> None:
    assert [word for word in vocabulary() if len(words(word).input_ids) != 3] == []
    assert all(f"{trigger}</w>" in words.get_vocab() for trigger in TRIGGERS)


def test_other_text_falls_into_pieces_that_are_known(words: Any) -> None:
    ids = words("gargoyle, 42!").input_ids
    assert len(ids) > 6
    assert words.eos_token_id not in ids[1:-1]
    assert words("A Photo").input_ids == words("a photo").input_ids


def test_the_longest_prompt_fits(words: Any) -> None:
    style = max((phrase for group in STYLES.values() for phrase in group), key=len)
    scene = max((phrase for group in SCENES.values() for phrase in group), key=len)
    assert len(words(f"{style} a qxzj orange and yellow polka dot teddy bear {scene}").input_ids) < 32


def test_the_tokenizer_has_the_files_that_older_readers_want(saved: Path) -> None:
    names = {path.name for path in (saved / "tokenizer").iterdir()}
    assert names >= {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"}


@pytest.mark.parametrize("kind", architecture.PARTS)
def test_a_part_is_small_enough(saved: Path, kind: str) -> None:
    assert sum(path.stat().st_size for path in (saved / kind).glob("*.safetensors")) <= LIMITS[kind]


def test_the_whole_is_small_enough(saved: Path) -> None:
    sizes = [path.stat().st_size for path in files_of(saved)]
    assert max(sizes) < 15_000_000 and sum(sizes) <= MOST_BYTES


def test_no_file_knows_where_it_was_written(saved: Path) -> None:
    for path in files_of(saved):
        assert str(saved.parent).encode() not in path.read_bytes(), path.name
        assert path.stat().st_mode & 0o777 == 0o644, path.name


def test_plain_diffusers_reads_it_without_a_variant_and_in_one_precision(pipe: Any, saved: Path) -> None:
    from diffusers import StableDiffusionPipeline

    read = StableDiffusionPipeline.from_pretrained(saved)
    for kind in architecture.PARTS:
        ours, theirs = getattr(pipe, kind).state_dict(), getattr(read, kind).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(theirs[name].dtype == torch.float32 for name in theirs)
        assert all(torch.equal(value.half().float(), theirs[name]) for name, value in ours.items())
    assert read.scheduler.config.prediction_type == "v_prediction"
    assert read.tokenizer("sks mug").input_ids == pipe.tokenizer("sks mug").input_ids


def test_the_toolkit_loads_it_and_it_draws(saved: Path) -> None:
    base = load_base(str(saved))
    assert base.native_resolution == 128
    image = base.pipe("a photo of a mug", num_inference_steps=1, guidance_scale=1.0).images[0]
    assert image.size == (128, 128)


def test_text_encoder_names_are_those_of_every_reader(saved: Path) -> None:
    with safe_open(saved / "text_encoder" / "model.safetensors", "pt") as file:
        assert all(name.startswith("text_model.") for name in file.keys())  # noqa: SIM118 - not a dict


def test_a_part_comes_back_as_it_was_written_and_forgets_where(tmp_path: Path) -> None:
    written = architecture.unet((32, 32), text_width=32, size=32)
    architecture.save_part("unet", written, tmp_path / "one")
    architecture.save_part("unet", architecture.load_part("unet", tmp_path / "one"), tmp_path / "two")
    for path in files_of(tmp_path / "one"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize("damage", ["missing", "not json", "cut off", "other architecture"])
def test_a_damaged_part_is_refused_in_plain_words(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "vae"
    architecture.save_part("vae", architecture.autoencoder((16, 16, 16, 16), size=32), folder)
    (weights,) = folder.glob("*.safetensors")
    if damage == "missing":
        (folder / "config.json").unlink()
    elif damage == "not json":
        (folder / "config.json").write_text("{")
    elif damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        config = folder / "config.json"
        config.write_text(config.read_text().replace('"latent_channels": 8', '"latent_channels": 4'))
    with pytest.raises(ModelError, match="There is no whole vae in"):
        architecture.load_part("vae", folder)
