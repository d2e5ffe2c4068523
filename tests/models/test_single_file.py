"""One checkpoint file in the original layout: the same model as its folder, offline, and refusals in plain words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from original_layout import original_layout
from safetensors.torch import save_file
from small_models import FAMILIES, small_configurations, small_pipeline, weights_of

from dora_diffusion.errors import ConfigError, ModelError
from dora_diffusion.models import BaseModel, load_base
from dora_diffusion.models.single_file import CONFIGURATIONS, load_single_file


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """A pipeline of each family; tests do not change them."""
    return {family: small_pipeline(family, clip_words=True) for family in FAMILIES}


@pytest.fixture(scope="module")
def configurations(small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's folder of configurations, its models' sizes replaced by the small ones'."""
    return small_configurations(small, tmp_path_factory.mktemp("configs") / "configs")


@pytest.fixture
def checkpoint(small: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Writes a family's checkpoint: ``checkpoint(family, add={name: tensor}, drop="piece of a name")``."""

    def write(family: str, add: dict[str, torch.Tensor] | None = None, drop: str = "nothing") -> Path:
        tensors = {name: t for name, t in original_layout(small[family]).items() if drop not in name}
        save_file(tensors | (add or {}), tmp_path / "model.safetensors")
        return tmp_path / "model.safetensors"

    return write


# What published files hold besides, and nobody needs.
EVERYWHERE = {"alphas_cumprod": torch.zeros(1000), "model_ema.decay": torch.zeros(())}
POSITIONS = torch.arange(77)[None]
BESIDES = {
    "sd1": {**EVERYWHERE, "cond_stage_model.transformer.text_model.embeddings.position_ids": POSITIONS},
    "sd2": {**EVERYWHERE, "cond_stage_model.model.logit_scale": torch.zeros(())},
    "sdxl": {
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": POSITIONS,
        "conditioner.embedders.1.model.logit_scale": torch.zeros(()),
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_is_the_same_model_as_its_folder(
    family: str,
    small: dict[str, Any],
    checkpoint: Callable[..., Path],
    configurations: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    base = load_base(str(checkpoint(family, add=BESIDES[family])), configurations=configurations)
    assert capsys.readouterr() == ("", "")
    ours, theirs = weights_of(base.pipe), weights_of(small[family])
    assert base.family.name == family and ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    prompts = ["a photo of sks dog", ""]
    plain = BaseModel("plain", base.family, small[family])
    with torch.no_grad():
        found, expected = base.encode_prompts(prompts), plain.encode_prompts(prompts)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_file_becomes_a_folder(checkpoint: Callable[..., Path], configurations: Path, tmp_path: Path) -> None:
    """With a tokenizer: what merging writes is a whole pipeline."""
    base = load_base(str(checkpoint("sdxl")), configurations=configurations)
    base.pipe.save_pretrained(tmp_path / "folder")
    again = load_base(str(tmp_path / "folder"))
    ours, theirs = weights_of(again.pipe), weights_of(base.pipe)
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    for part, pad in (("tokenizer", 49407), ("tokenizer_2", 0)):
        ids = getattr(again.pipe, part)("a photo of sks dog", padding="max_length").input_ids
        assert ids == [49406, 320, 1125, 539, 48136, 1929, 49407] + [pad] * 70


def test_the_autoencoder_of_a_file_stays_precise(checkpoint: Callable[..., Path], configurations: Path) -> None:
    base = load_base(str(checkpoint("sdxl")), dtype=torch.bfloat16, configurations=configurations)
    assert base.vae.dtype == torch.float32 and {part.dtype for part in base.adaptable().values()} == {torch.bfloat16}


@pytest.mark.parametrize(("told", "expected"), [("epsilon", "epsilon"), ("v", "v_prediction"), ("?", "v_prediction")])
def test_a_header_says_what_a_file_of_sd2_predicts(
    told: str, expected: str, small: dict[str, Any], configurations: Path, tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    save_file(original_layout(small["sd2"]), file, {"modelspec.prediction_type": told})
    assert load_base(str(file), configurations=configurations).prediction_type == expected
    given = load_base(str(file), prediction_type="epsilon", configurations=configurations)
    assert given.prediction_type == "epsilon", "what the user says holds"


@pytest.mark.parametrize(
    ("family", "given", "expected", "side"),
    [
        ("sd1", None, "epsilon", 64),
        ("sd2", None, "v_prediction", 96),
        ("sd2", "epsilon", "epsilon", 64),
        ("sd2", "v_prediction", "v_prediction", 96),
        ("sdxl", None, "epsilon", 128),
    ],
)
def test_what_a_file_predicts(
    family: str, given: str | None, expected: str, side: int, checkpoint: Callable[..., Path], configurations: Path
) -> None:
    """SD 2.x's two kinds have the same tensors: v, as diffusers takes it, unless the user says otherwise."""
    base = load_base(str(checkpoint(family)), prediction_type=given, configurations=configurations)
    assert base.prediction_type == expected
    folder = CONFIGURATIONS / base.family.configuration(given)
    assert json.loads((folder / "unet" / "config.json").read_text())["sample_size"] == side


def test_marks_in_a_file_say_v_and_zero_terminal_snr(checkpoint: Callable[..., Path], configurations: Path) -> None:
    file = checkpoint("sdxl", add={"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)})
    base = load_base(str(file), configurations=configurations)
    assert base.schedule_facts() == {"prediction_type": "v_prediction", "rescale_betas_zero_snr": "true"}
    with pytest.raises(ConfigError, match="zero terminal SNR cannot train a model that predicts the noise"):
        load_base(str(file), prediction_type="epsilon", configurations=configurations)


SIZES = {
    ("sd1", "unet"): 859_520_964,
    ("sd1", "vae"): 83_653_863,
    ("sd1", "text_encoder"): 123_060_480,
    ("sd2-512", "unet"): 865_910_724,
    ("sd2-512", "text_encoder"): 340_387_840,
    ("sd2-768-v", "unet"): 865_910_724,
    ("sd2-768-v", "vae"): 83_653_863,
    ("sd2-768-v", "text_encoder"): 340_387_840,
    ("sdxl", "unet"): 2_567_463_684,
    ("sdxl", "vae"): 83_653_863,
    ("sdxl", "text_encoder"): 123_060_480,
    ("sdxl", "text_encoder_2"): 694_659_840,
}


@pytest.mark.parametrize(("folder", "part"), SIZES)
def test_the_packages_configurations_are_the_published_models(folder: str, part: str) -> None:
    """The parameter counts of the originals."""
    library, kind = json.loads((CONFIGURATIONS / folder / "model_index.json").read_text())[part]
    cls = getattr({"diffusers": diffusers, "transformers": transformers}[library], kind)
    with torch.device("meta"):
        if library == "diffusers":
            model = cls.from_config(cls.load_config(CONFIGURATIONS / folder, subfolder=part))
        else:
            model = cls(cls.config_class.from_pretrained(CONFIGURATIONS / folder, subfolder=part))
    assert sum(parameter.numel() for parameter in model.parameters()) == SIZES[folder, part]


@pytest.mark.parametrize(
    ("family", "drop", "add", "told"),
    [
        ("sd1", "cond_stage", {}, "holds a UNet and no text encoder that is known"),
        ("sd1", "diffusion_model", {}, r"holds no UNet in the original layout .*its first tensor: cond_stage_model"),
        (
            "sdxl",
            "embedders.0",
            {"conditioner.embedders.0.model.text_projection": 1},
            "is SDXL's refiner: .*Train the base",
        ),
        ("sdxl", "nothing", {"edm_mean": 4}, "is trained in the EDM formulation"),
        ("sd1", "nothing", {"lora_unet_down.lora_down.weight": 1}, "is an adapter, not a base model"),
        ("sd1", "diffusion_model", {"model.diffusion_model.joint_blocks.0.x": 1}, "is Stable Diffusion 3"),
        ("sd1", "diffusion_model", {"double_blocks.0.img_attn.qkv.weight": 1}, "is FLUX"),
        ("sd1", "middle_block.1.norm.weight", {}, "cannot be loaded: it lacks tensors that a whole sd1 checkpoint has"),
        (
            "sd2",
            "resblocks.1.ln_1.bias",
            {},
            r"it lacks tensors that a whole sd2 .* first encoder\.layers\.1\.layer_norm1\.bias of its text",
        ),
        ("sdxl", "decoder.mid.attn_1.k.weight", {}, "cannot be loaded: it lacks tensors that a whole sdxl checkp"),
    ],
)
def test_files_that_are_no_base(
    family: str, drop: str, add: dict[str, int], told: str, checkpoint: Callable[..., Path], configurations: Path
) -> None:
    file = checkpoint(family, {name: torch.zeros(size) for name, size in add.items()}, drop)
    with pytest.raises(ModelError, match=told):
        load_base(str(file), configurations=configurations)


def test_an_inpainting_file(checkpoint: Callable[..., Path], configurations: Path) -> None:
    file = checkpoint("sd1", {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 9, 3, 3)})
    with pytest.raises(ModelError, match="is an inpainting model: its UNet takes a mask"):
        load_base(str(file), configurations=configurations)


@pytest.mark.parametrize("setting", [{"variant": "fp16"}, {"revision": "main"}])
def test_a_file_has_no_variants(setting: dict[str, str], checkpoint: Callable[..., Path], configurations: Path) -> None:
    with pytest.raises(ConfigError, match="is a single file, without revisions or variants: leave --revision"):
        load_base(str(checkpoint("sd1")), configurations=configurations, **setting)


def test_a_cut_file_and_one_of_another_kind(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    file = checkpoint("sd1")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"is no whole checkpoint file \(.*; it is of another kind, or was cut off"):
        load_base(str(file))
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(ModelError, match=r"a single file must be \.safetensors, got \.txt"):
        load_base(str(tmp_path / "notes.txt"))


def test_a_model_of_another_size_is_told_apart(checkpoint: Callable[..., Path]) -> None:
    """Without its own configuration a small model has the names of the published one and other shapes."""
    with pytest.raises(ModelError, match="is of another size than the published models .* diffusers' layout"):
        load_single_file(checkpoint("sd1"), "small", dtype=torch.float32, prediction_type=None, allow_pickle=False)


def test_a_pickle_is_refused_unless_allowed(small: dict[str, Any], configurations: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    torch.save({"state_dict": original_layout(small["sd1"]), "global_step": 5}, file)
    with pytest.raises(ModelError, match=r"is a pickle \(\.ckpt\), which can run any code.*--allow_pickle"):
        load_base(str(file), configurations=configurations)
    base = load_base(str(file), allow_pickle=True, configurations=configurations)
    ours, theirs = weights_of(base.pipe), weights_of(small["sd1"])
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
