"""A base in pickles is refused by ``generate`` and ``merge`` too, unless the flag that names the danger is given."""

import shutil
from pathlib import Path

import pytest
from moved import moved_state
from pickled import as_pickles
from PIL import Image
from safetensors.torch import load_file

from dora_diffusion.cli import main
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.models import resolve

SIZE = ("--num_images", "1", "--num_inference_steps", "2", "--height", "64", "--width", "64")
DRAWING = ("--prompt", "a mug", "--guidance_scale", "3", *SIZE)  # its usual one is the embedded base's own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base``: the embedded base in pickles; ``run``: an adapter for it."""
    folder = tmp_path_factory.mktemp("pickled")
    as_pickles(Path(shutil.copytree(resolve("toybox"), folder / "base")))
    DIFFUSERS.write(moved_state("dora"), folder / "run" / WEIGHTS_NAME)
    return folder


def flags(folder: Path, command: str, base: str, output: Path) -> list[str]:
    asked = [command, "--adapter", str(folder / "run"), "--pretrained_model_name_or_path", base]
    return [*asked, "--output_dir", str(output), *(DRAWING if command == "generate" else ())]


@pytest.mark.parametrize("command", ["generate", "merge"])
def test_pickles_are_read_only_where_the_flag_says_so(
    command: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = flags(folder, command, str(folder / "base"), tmp_path / "pickled")
    assert main(asked) == 2
    assert "only has .bin weights" in capsys.readouterr().err and not (tmp_path / "pickled").exists()
    assert main([*asked, "--allow_pickle"]) == 0
    assert main(flags(folder, command, "toybox", tmp_path / "plain")) == 0
    if command == "generate":
        (ours,), (theirs,) = ((tmp_path / name).glob("*.png") for name in ("pickled", "plain"))
        assert Image.open(ours).tobytes() == Image.open(theirs).tobytes()
    else:
        name = Path("unet") / "diffusion_pytorch_model.safetensors"
        ours, theirs = (load_file(tmp_path / folder / name) for folder in ("pickled", "plain"))
        assert all((ours[key] == theirs[key]).all() for key in theirs)
