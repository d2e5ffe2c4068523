"""Another autoencoder in a base: read from its folder, used by the run, refused where it cannot fit."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from tiny_model import tiny_pipeline

from dora_diffusion.cli import main
from dora_diffusion.errors import ModelError
from dora_diffusion.formats import WEIGHTS_NAME, read_safetensors
from dora_diffusion.models import load_base
from dora_diffusion.models.vae import replace_vae

PHOTOS = Path(__file__).parents[2] / "samples" / "subjects" / "teapot"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in ``model``, and the autoencoder of another, in half precision, in ``vae``."""
    folder = tmp_path_factory.mktemp("models")
    tiny_pipeline(0).save_pretrained(folder / "model")
    tiny_pipeline(1).vae.half().save_pretrained(folder / "vae")
    return folder


def test_the_base_has_the_other_autoencoder_in_float32(folder: Path) -> None:
    base, expected = load_base(str(folder / "model")), AutoencoderKL.from_pretrained(folder / "vae")
    before = base.vae.encoder.conv_in.weight.clone()
    replace_vae(base, str(folder / "vae"))
    assert base.pipe.vae is base.vae and base.vae.dtype == torch.float32
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(base.vae.parameters(), expected.parameters(), strict=True)
    )
    assert not torch.equal(base.vae.encoder.conv_in.weight, before)


def train(folder: Path, out: Path, *more: str) -> int:
    what = ["--pretrained_model_name_or_path", str(folder / "model"), "--instance_data_dir", str(PHOTOS)]
    how = ["--instance_prompt", "sks", "--resolution", "64", "--max_train_steps", "2", "--cpu", "--rank", "1"]
    return main(["train", *what, *how, "--output_dir", str(out), *more])


def test_a_run_encodes_its_photos_with_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ["--pretrained_vae_model_name_or_path", str(folder / "vae")]
    assert train(folder, tmp_path / "own") == 0 and train(folder, tmp_path / "other", *other) == 0
    own, changed = (read_safetensors(tmp_path / name / WEIGHTS_NAME)[0] for name in ("own", "other"))
    assert own.keys() == changed.keys()
    assert any(not torch.equal(own[name], changed[name]) for name in own)
    assert train(folder, tmp_path / "own", "--max_train_steps", "3", *other) == 2
    assert "pretrained_vae_model_name_or_path is None there and" in capsys.readouterr().err


def test_one_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    base = load_base(str(folder / "model"))
    own = base.vae
    AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4).save_pretrained(tmp_path / "flat")
    (tmp_path / "file.safetensors").write_bytes(b"")
    for source, told in (
        (folder / "model", "has no config.json; give the folder that holds it"),
        (tmp_path / "file.safetensors", "is a single file"),
        (tmp_path / "nothing" / "here", "cannot be loaded: "),
        (tmp_path / "flat", "has latents of 4 channels at 1/2 of the side, and .* is made for 4 at 1/8"),
    ):
        with pytest.raises(ModelError, match=told) as caught:
            replace_vae(base, str(source))
        assert "\n" not in str(caught.value)
    assert base.vae is own
