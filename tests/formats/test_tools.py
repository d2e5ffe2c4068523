"""convert, resize, combine, extract: files in, files out, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from moved import moved_state
from safetensors import safe_open
from safetensors.torch import load_file

from dora_diffusion.adapters import AdapterState, merged_weights
from dora_diffusion.cli import main
from dora_diffusion.config import CombineConfig, ConvertConfig, ExportConfig, ExtractConfig, ResizeConfig
from dora_diffusion.errors import AdapterError, ConfigError, FormatError
from dora_diffusion.formats import export, load_adapter
from dora_diffusion.formats.base_files import open_base
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.formats.tools import combine_files, convert_file, extract_models, resize_file
from dora_diffusion.formats.tools.combine import NOT_ADDITIVE, OTHER_BASES
from dora_diffusion.formats.tools.extract import NO_WORDS
from dora_diffusion.inference import MergedWeights
from dora_diffusion.models import load_base
from dora_diffusion.registry import FORMATS

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A DoRA and a LoRA of toybox, rank 8, and the DoRA without the name of its base."""
    folder = tmp_path_factory.mktemp("adapters")
    states = {"dora": moved_state("dora", seed=1), "lora": moved_state("lora", seed=2)}
    states["nameless"] = AdapterState("dora", states["dora"].layers)
    for name, state in states.items():
        DIFFUSERS.write(state, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in states}


def changes(state: AdapterState) -> dict[str, torch.Tensor]:
    """``W' - W0`` on toybox in float64."""
    weights = {name: weight.double() for name, weight in bases().items()}
    return {name: merged.double() - weights[name] for name, merged in merged_weights(state, bases())}


def bases() -> dict[str, torch.Tensor]:
    weights = open_base("toybox").weights
    return {name: weights[name] for name in weights}


def distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    left = sum(float((ours[name] - theirs[name]).square().sum()) for name in theirs)
    return (left / sum(float(theirs[name].square().sum()) for name in theirs)) ** 0.5


class TestConvert:
    def test_rewrites_what_it_read(self, files: dict[str, Path], tmp_path: Path) -> None:
        made = convert_file(ConvertConfig(adapter=files["dora"], output=tmp_path / "x.safetensors"))
        before, after = load_file(files["dora"]), load_file(made.path)
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
        assert made.fits is None
        assert made.to_text() == f"Read back by the rules of: diffusers.\n{tmp_path / 'x.safetensors'}"

    @pytest.mark.parametrize("name", ["diffusers", "lora"])
    def test_the_precision_is_that_of_export(
        self, name: str, files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The file that export writes in it, and the same warning."""
        both = {"adapter": files["dora"], "format": name, "precision": "fp16"}
        export(ExportConfig(**both, output=tmp_path / "a" / "x.safetensors"))
        told = caplog.messages.copy()
        caplog.clear()
        convert_file(ConvertConfig(**both, output=tmp_path / "b" / "x.safetensors"))
        assert any(message.startswith("In fp16 a layer's change may be off by") for message in told)
        assert set(caplog.messages) <= set(told) and told[-1] == caplog.messages[-1]
        exported, converted = (load_file(tmp_path / place / "x.safetensors") for place in "ab")
        assert exported.keys() == converted.keys()
        assert all(torch.equal(exported[key], converted[key]) for key in exported)
        assert {tensor.dtype for key, tensor in converted.items() if "lora_up" in key or "lora_A" in key} == {
            torch.float16
        }

    def test_as_a_plain_lora_and_what_that_leaves_out(self, files: dict[str, Path], tmp_path: Path) -> None:
        asked = ConvertConfig(adapter=files["dora"], output=tmp_path / "x.safetensors", plain_lora=True, rank=12)
        made = convert_file(asked)
        found = load_adapter(made.path)
        assert found.kind == "lora" and {layer.rank for layer in found.layers.values()} == {12}
        real = distance(changes(found), changes(load_adapter(files["dora"])))
        assert made.fits is not None and made.fits.residual == pytest.approx(real, rel=1e-3)
        first, much, proved, path = made.to_text().splitlines()
        assert real > 0.2 and much == "more than 20 % is much: raise the rank"
        assert proved == "Read back by the rules of: diffusers."
        assert first.startswith(f"72 layers of rank 12; of the change of the weights {100 * real:.3g} % is left out (")
        assert path == str(made.path) and float(found.metadata["svd_residual"]) == pytest.approx(real, rel=1e-3)
        assert found.metadata["trigger"] == "sks"

    def test_the_default_rank_and_that_of_an_error(self, files: dict[str, Path], tmp_path: Path) -> None:
        asked: dict[str, Any] = {"adapter": files["dora"], "output": tmp_path / "x.safetensors", "plain_lora": True}
        convert_file(ConvertConfig(**asked))
        assert {layer.rank for layer in load_adapter(tmp_path / "x.safetensors").layers.values()} == {32}
        fits = convert_file(ConvertConfig(**asked, error=0.3)).fits
        assert fits is not None and max(fit.residual for fit in fits.layers.values()) <= 0.3
        by_energy = convert_file(ConvertConfig(**asked, energy=1 - 0.3**2)).fits
        assert by_energy == fits and len({fit.rank for fit in fits.layers.values()}) > 1

    def test_the_format_lora_makes_one_by_itself(self, files: dict[str, Path], tmp_path: Path) -> None:
        asked: dict[str, Any] = {"format": "lora", "output": tmp_path / "x.safetensors"}
        made = convert_file(ConvertConfig(adapter=files["dora"], **asked, rank=4))
        assert made.fits is not None and {layer.rank for layer in load_adapter(made.path).layers.values()} == {4}
        assert all(key.startswith("lora_") for key in load_file(made.path)), "under kohya's names, as A1111 reads them"
        assert convert_file(ConvertConfig(adapter=files["lora"], **asked)).fits is None
        assert convert_file(ConvertConfig(adapter=files["lora"], **asked, rank=2)).fits is not None

    @pytest.mark.parametrize("format_", [name for name in FORMATS if name not in ("peft", "lora")])
    def test_any_format_to_any_other_and_back(self, format_: str, files: dict[str, Path], tmp_path: Path) -> None:
        there = ConvertConfig(adapter=files["dora"], format=format_, output=tmp_path / "x.safetensors")
        back = ConvertConfig(adapter=convert_file(there).path, format="kohya", output=tmp_path / "y.safetensors")
        found, expected = changes(load_adapter(convert_file(back).path)), changes(load_adapter(files["dora"]))
        assert distance(found, expected) < 1e-4

    def test_pefts_folder_is_written_and_read(self, files: dict[str, Path], tmp_path: Path) -> None:
        made = convert_file(ConvertConfig(adapter=files["dora"], format="peft", output=tmp_path / "folder"))
        assert distance(changes(load_adapter(made.path)), changes(load_adapter(files["dora"]))) < 1e-4
        with pytest.raises(ConfigError, match="The output of peft is a folder"):
            convert_file(ConvertConfig(adapter=files["dora"], format="peft", output=tmp_path / "x.safetensors"))

    def test_a_rank_too_small_for_what_was_asked_is_told(self, files: dict[str, Path], tmp_path: Path) -> None:
        asked = ConvertConfig(
            adapter=files["dora"], output=tmp_path / "x.safetensors", plain_lora=True, rank=2, energy=0.999
        )
        assert "72 layers keep less than was asked for at the largest rank, 2, first " in (
            convert_file(asked).to_text()
        )

    def test_a_dora_without_its_base_is_asked_for_and_a_given_one_is_used(
        self, files: dict[str, Path], tmp_path: Path
    ) -> None:
        asked: dict[str, Any] = {"adapter": files["nameless"], "output": tmp_path / "x.safetensors", "plain_lora": True}
        with pytest.raises(ConfigError, match="does not say which it was trained on"):
            convert_file(ConvertConfig(**asked))
        convert_file(ConvertConfig(**asked, pretrained_model_name_or_path="toybox"))
        assert load_adapter(tmp_path / "x.safetensors").kind == "lora"

    def test_a_lora_needs_no_base(self, files: dict[str, Path], tmp_path: Path) -> None:
        asked: dict[str, Any] = {"adapter": files["lora"], "output": tmp_path / "x.safetensors", "plain_lora": True}
        convert_file(ConvertConfig(**asked, rank=8, pretrained_model_name_or_path="no/such-base"))
        found = load_adapter(tmp_path / "x.safetensors")
        assert distance(changes(found), changes(load_adapter(files["lora"]))) < 1e-4

    def test_another_base_is_warned_of(
        self, files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        base = load_base("toybox")
        with torch.no_grad():
            base.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight.mul_(1.1)
        base.pipe.save_pretrained(tmp_path / "other")
        asked: dict[str, Any] = {"adapter": files["dora"], "output": tmp_path / "x.safetensors", "plain_lora": True}
        convert_file(ConvertConfig(**asked, rank=4, pretrained_model_name_or_path=str(tmp_path / "other")))
        assert "differ in 1 of 72 layers" in caplog.text


class TestResize:
    def test_a_dora_stays_one_and_the_error_is_that_of_its_weights(
        self, files: dict[str, Path], tmp_path: Path
    ) -> None:
        made = resize_file(ResizeConfig(adapter=files["dora"], output=tmp_path / "x.safetensors", rank=3))
        found = load_adapter(made.path)
        assert found.kind == "dora" and {layer.rank for layer in found.layers.values()} == {3}
        real = distance(changes(found), changes(load_adapter(files["dora"])))
        assert made.fits is not None and made.fits.residual == pytest.approx(real, rel=1e-3) and real > 0.1

    def test_by_error_alone_no_layer_grows(self, files: dict[str, Path], tmp_path: Path) -> None:
        made = resize_file(ResizeConfig(adapter=files["lora"], output=tmp_path / "x.safetensors", error=0.5))
        assert made.fits is not None and {fit.rank for fit in made.fits.layers.values()} < set(range(1, 8))

    def test_to_more_ranks_nothing_is_lost(self, files: dict[str, Path], tmp_path: Path) -> None:
        made = resize_file(ResizeConfig(adapter=files["dora"], output=tmp_path / "x.safetensors", rank=20))
        found = load_adapter(made.path)
        assert {layer.rank for layer in found.layers.values()} == {20}
        assert distance(changes(found), changes(load_adapter(files["dora"]))) < 1e-5
        told = "72 of 72 layers had fewer ranks and are filled up with ones that do nothing: the file is larger"
        assert told in made.to_text()

    @pytest.mark.parametrize("rank", [3, 8])
    def test_that_nothing_is_gained_is_said_only_where_a_layer_grows(
        self, rank: int, files: dict[str, Path], tmp_path: Path
    ) -> None:
        made = resize_file(ResizeConfig(adapter=files["lora"], output=tmp_path / "x.safetensors", rank=rank))
        assert made.notes == ()

    def test_a_rank_is_needed(self, files: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="Which rank"):
            resize_file(ResizeConfig(adapter=files["dora"], output=tmp_path / "x.safetensors"))


class TestCombine:
    @pytest.mark.parametrize("full", [False, True])
    def test_the_sum_by_weight(self, full: bool, files: dict[str, Path], tmp_path: Path) -> None:
        asked: dict[str, Any] = {"full": True, "format": "diff"} if full else {"rank": 40}
        made = combine_files(
            CombineConfig(
                adapters=[files["dora"], files["lora"]], weights=[0.8, -0.5], output=tmp_path / "x.safetensors", **asked
            )
        )
        first, second = changes(load_adapter(files["dora"])), changes(load_adapter(files["lora"]))
        total = {name: 0.8 * first[name] - 0.5 * second[name] for name in first}
        found = load_adapter(made.path)
        real = distance(changes(found), total)
        assert found.kind == "lora"
        if full:
            assert real < 1e-4 and made.fits is None
        else:
            assert made.fits is not None and made.fits.residual == pytest.approx(real, rel=1e-3)
        assert made.notes == (NOT_ADDITIVE,)

    def test_weights_left_out_are_one_each_and_loras_are_additive(self, files: dict[str, Path], tmp_path: Path) -> None:
        made = combine_files(CombineConfig(adapters=[files["lora"]] * 2, output=tmp_path / "x.safetensors", rank=8))
        once = changes(load_adapter(files["lora"]))
        assert distance(changes(load_adapter(made.path)), {name: 2 * t for name, t in once.items()}) < 1e-4
        assert made.notes == ()

    def test_adapters_of_different_bases_are_told(self, files: dict[str, Path], tmp_path: Path) -> None:
        state = load_adapter(files["lora"])
        prints = {name: [1.1 * norm for norm in norms] for name, norms in state.fingerprint.items()}
        DIFFUSERS.write(AdapterState("lora", state.layers, "other", prints), tmp_path / "other.safetensors")
        made = combine_files(
            CombineConfig(
                adapters=[files["lora"], tmp_path / "other.safetensors"], output=tmp_path / "x.safetensors", rank=2
            )
        )
        assert made.notes == (OTHER_BASES,)

    def test_one_adapter_is_none_to_combine(self, files: dict[str, Path]) -> None:
        with pytest.raises(ConfigError, match="at least two after --adapters, got 1"):
            combine_files(CombineConfig(adapters=[files["lora"]]))


class TestExtract:
    @pytest.fixture
    def tuned(self, files: dict[str, Path], tmp_path: Path) -> Path:
        """toybox with the DoRA merged in, and a bias and a convolution moved besides."""
        base = load_base("toybox")
        MergedWeights(base, keep=0).switch(load_adapter(files["dora"]))
        with torch.no_grad():
            base.unet.conv_out.weight.add_(0.01)
            base.unet.conv_out.bias.add_(0.1)
        base.pipe.save_pretrained(tmp_path / "tuned")
        return tmp_path / "tuned"

    @pytest.mark.parametrize("kind", ["dora", "lora"])
    def test_an_adapter_between_two_models(
        self, kind: str, tuned: Path, files: dict[str, Path], tmp_path: Path
    ) -> None:
        names = {"pretrained_model_name_or_path": "toybox", "tuned_model_name_or_path": str(tuned)}
        made = extract_models(
            ExtractConfig(**names, kind=kind, rank=8, targets="attn", output=tmp_path / "x.safetensors")
        )
        found, original = load_adapter(made.path), load_adapter(files["dora"])
        assert found.kind == kind and found.base_name == "toybox" and found.fingerprint == original.fingerprint
        assert found.metadata["tuned_model"] == str(tuned) and "prediction_type" in found.metadata
        real = distance(changes(found), changes(original))
        assert made.fits is not None and made.fits.residual == pytest.approx(real, rel=1e-2)
        assert real < 0.05 if kind == "dora" else real > 0.05
        assert made.notes == (
            "Left out, though tuning changed them: 1 layers that --targets does not name, and 1 tensors that no "
            "adapter carries (biases, norms, embeddings), first model.diffusion_model.out.2.bias.",
            NO_WORDS,
        )

    def test_the_words_it_was_taught_travel_with_it(self, tuned: Path, tmp_path: Path) -> None:
        """To where each reader looks for them."""
        made = extract_models(
            ExtractConfig(
                pretrained_model_name_or_path="toybox",
                tuned_model_name_or_path=str(tuned),
                kind="lora",
                rank=2,
                targets="attn",
                format="kohya",
                trigger="sks",
                instance_prompt="a photo of sks teapot",
                output=tmp_path / "x.safetensors",
            )
        )
        assert NO_WORDS not in made.notes
        found = load_adapter(made.path).metadata
        assert (found["trigger"], found["instance_prompt"]) == ("sks", "a photo of sks teapot")
        with safe_open(made.path, "pt") as file:
            header = file.metadata()
        assert header["modelspec.trigger_phrase"] == "sks"
        assert header["modelspec.usage_hint"] == "a photo of sks teapot"
        assert json.loads(header["ss_tag_frequency"]) == {"x": {"sks": 1}}

    def test_targets_are_checked(self, tmp_path: Path) -> None:
        names = {"pretrained_model_name_or_path": "toybox", "tuned_model_name_or_path": "toybox"}
        for target, told in (("nothing", "matches none of the"), ("(", "is not a valid regex")):
            with pytest.raises(ConfigError, match=told):
                extract_models(ExtractConfig(**names, targets=target, output=tmp_path / "x.safetensors"))
        with pytest.raises(AdapterError, match="have the same weights in every layer"):
            extract_models(ExtractConfig(**names, output=tmp_path / "x.safetensors"))
        with pytest.raises(ConfigError, match="Which models"):
            extract_models(ExtractConfig(output=tmp_path / "x.safetensors"))


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        (ConvertConfig, {"rank": 4}, "give --plain_lora with them"),
        (ConvertConfig, {"plain_lora": True, "energy": 0.9, "error": 0.1}, "give one of them"),
        (ResizeConfig, {"rank": 0}, "rank must be greater than or equal to 1, got 0"),
        (ResizeConfig, {"energy": 0}, "energy must be greater than 0, got 0"),
        (ResizeConfig, {"error": 1}, "error must be less than 1, got 1"),
        (CombineConfig, {"adapters": [Path("a"), Path("b")], "weights": [1.0]}, "got 1 for 2 adapters"),
        (CombineConfig, {"full": True, "rank": 4}, "full keeps every rank"),
        (ExtractConfig, {"kind": "dorra"}, "got 'dorra'"),
    ],
)
def test_settings_that_contradict_each_other(kind: Any, values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**values)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_every_command_runs_and_ends_with_its_file(files: dict[str, Path], tmp_path: Path, capsys: Capture) -> None:
    out = str(tmp_path / "x.safetensors")
    pair = ["--adapters", str(files["dora"]), str(files["lora"])]
    for arguments in (
        ["convert", "--adapter", str(files["dora"]), "--plain_lora", "--rank", "4"],
        ["resize", "--adapter", str(files["lora"]), "--rank", "4"],
        ["combine", *pair, "--weights", "1", "-0.5", "--rank", "4"],
    ):
        assert main([*arguments, "--output", out]) == 0
        told = capsys.readouterr().out.splitlines()
        assert told[-1] == out and told[0].startswith("72 layers of rank 4; of the change of the weights ")
        assert load_adapter(out).layers
    assert main(["extract", "--pretrained_model_name_or_path", "toybox", "--output", out]) == 2
    assert "--tuned_model_name_or_path" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["convert", "resize"])
def test_mistakes_are_told_in_a_line(command: str, files: dict[str, Path], tmp_path: Path, capsys: Capture) -> None:
    extra = ["--rank", "4"] if command == "resize" else []
    for arguments, told in (
        ([*extra], "Which adapter?"),
        (
            [*extra, "--adapter", str(files["dora"]), "--output", "x.bin"],
            "The output is a .safetensors file, got x.bin",
        ),
        ([*extra, "--adapter", str(tmp_path / "none")], "There is no adapter at"),
    ):
        assert main([command, *arguments]) == 2
        assert told in capsys.readouterr().err


def test_a_broken_file_is_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="is no whole safetensors file"):
        convert_file(ConvertConfig(adapter=tmp_path / "x.safetensors", output=tmp_path / "y.safetensors"))
