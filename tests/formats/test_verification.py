"""A file's weights in a reader's hands, in numbers worked out by hand."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from full_size import full_size_shapes, full_size_state
from safetensors.torch import save_file
from slim_models import moved_on, slim_base

from dora_diffusion.adapters import AdapterState, LayerState
from dora_diffusion.errors import FormatError
from dora_diffusion.formats.base_weights import LoadedBase
from dora_diffusion.formats.verify import (
    AdapterFile,
    BaseWeights,
    Merged,
    Verification,
    as_json,
    read_adapter_file,
    readers_of,
    table,
    verify,
)
from dora_diffusion.formats.verify.layer_names import ldm_paths
from dora_diffusion.registry import FORMATS, READERS

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
KEY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
W0 = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
# B A = [[2, 0], [0, 0]] at alpha 2 of rank 1, so V = [[5, 4], [0, 2]]: rows of length sqrt(41) and 2.
DOWN, UP, ALPHA = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0], [0.0]]), torch.tensor(2.0)
V = torch.tensor([[5.0, 4.0], [0.0, 2.0]])
MAGNITUDE = torch.tensor([[10.0], [1.0]])


def base(family: str = "sd1") -> BaseWeights:
    return BaseWeights(family, {LAYER: W0})


def kohya(**parts: torch.Tensor) -> AdapterFile:
    named = {"lora_down.weight": DOWN, "lora_up.weight": UP, "alpha": ALPHA} | parts
    return AdapterFile({f"{KEY}.{part}": tensor for part, tensor in named.items()})


def merged_by(reader: str, file: AdapterFile) -> torch.Tensor:
    reader = READERS.load(reader)
    reading = reader.find(file, base())
    assert not reading.refusal
    return reader.merge(reading.layers[LAYER], W0)


class TestArithmetic:
    """The same file, one norm a row, as six programs understand it."""

    file = kohya(dora_scale=MAGNITUDE)

    def test_lycoris_divides_by_the_row_norm_of_the_sum(self) -> None:
        wanted = V * torch.tensor([[10 / 41**0.5], [0.5]])
        assert torch.allclose(merged_by("lycoris", self.file), wanted, rtol=1e-6)

    @pytest.mark.parametrize("reader", ["comfyui", "forge"])
    def test_comfyui_and_forge_divide_by_that_of_the_base(self, reader: str) -> None:
        assert torch.allclose(merged_by(reader, self.file), V * torch.tensor([[10 / 5], [0.5]]), rtol=1e-6)

    def test_a1111_divides_by_column_norms_and_broadcasts(self) -> None:
        wanted = V * (MAGNITUDE / torch.tensor([[5.0, 20**0.5]]))
        assert torch.allclose(merged_by("a1111", self.file), wanted, rtol=1e-6)

    @pytest.mark.parametrize("reader", ["diffusers", "sd_scripts"])
    def test_diffusers_and_sd_scripts_see_plain_lora(self, reader: str) -> None:
        assert torch.equal(merged_by(reader, self.file), V)

    @pytest.mark.parametrize("reader", ["comfyui", "forge", "a1111"])
    def test_one_norm_a_column_is_read_as_such(self, reader: str) -> None:
        columns = torch.tensor([[2.0, 3.0]])
        wanted = V * (columns / torch.tensor([[5.0, 20**0.5]]))
        # ComfyUI asks whether there are as many numbers down as rows: [1, 2] has one.
        assert torch.allclose(merged_by(reader, kohya(dora_scale=columns)), wanted, rtol=1e-6)

    @pytest.mark.parametrize("reader", ["comfyui", "forge", "a1111"])
    def test_without_an_alpha_the_scale_is_one(self, reader: str) -> None:
        tensors = {key: t for key, t in kohya().tensors.items() if not key.endswith("alpha")}
        assert torch.equal(merged_by(reader, AdapterFile(tensors)), torch.tensor([[4.0, 4.0], [0.0, 2.0]]))

    def test_diffusers_reads_its_own_keys_as_the_paper_has_it(self) -> None:
        parts = {"lora_A": DOWN, "lora_B": 2 * UP, "lora_magnitude_vector": MAGNITUDE.flatten()}
        file = AdapterFile({f"{LAYER}.{part}.weight": tensor for part, tensor in parts.items()})
        assert torch.allclose(merged_by("diffusers", file), V * torch.tensor([[10 / 41**0.5], [0.5]]), rtol=1e-6)

    def test_peft_takes_alpha_from_the_configuration(self) -> None:
        keys = {"lora_A.weight": DOWN, "lora_B.weight": UP, "lora_magnitude_vector": MAGNITUDE.flatten()}
        tensors = {f"unet/base_model.model.{LAYER.removeprefix('unet.')}.{k}": t for k, t in keys.items()}
        file = AdapterFile(tensors, configs={"unet": {"r": 1, "lora_alpha": 2, "use_dora": True}})
        assert torch.allclose(merged_by("peft", file), V * torch.tensor([[10 / 41**0.5], [0.5]]), rtol=1e-6)


class TestWhatIsSaid:
    """Coverage, errors, roundings, and who is refused."""

    wanted = {LAYER: V * torch.tensor([[10 / 41**0.5], [0.5]])}

    def check(self, reader: str, file: AdapterFile, wanted: dict[str, torch.Tensor] | None = None):
        return verify(file, READERS.load(reader), base(), self.wanted if wanted is None else wanted)

    def test_errors_are_told_against_the_weight_and_against_its_change(self) -> None:
        found = self.check("comfyui", kohya(dora_scale=MAGNITUDE))
        theirs, right = V * torch.tensor([[2.0], [0.5]]), self.wanted[LAYER]
        (layer,) = found.layers
        assert layer.error == pytest.approx(float((theirs - right).norm() / right.norm()), rel=1e-5)
        assert layer.of_change == pytest.approx(float((theirs - right).norm() / (right - W0).norm()), rel=1e-5)
        assert not found.is_right and found.covered == found.expected == 1
        assert "WRONG" in table([found]) and "of its change" in table([found])

    def test_the_right_one_is_right(self) -> None:
        found = self.check("lycoris", kohya(dora_scale=MAGNITUDE))
        assert found.is_right and found.worst_error < 1e-6 and found.left_over == ()
        assert table([found]).splitlines()[1].split()[:3] == ["lycoris", "right", "1/1"]

    def test_a_layer_that_is_not_read_is_off_by_its_whole_change(self) -> None:
        found = self.check("comfyui", AdapterFile({"nothing.known": DOWN}))
        assert (found.covered, found.expected, found.layers[0].of_change) == (0, 1, 1.0)
        assert not found.is_right and found.left_over == ("nothing.known",)
        assert table([found]).splitlines()[1:] == ["comfyui  not read  0/1     -              -           -         1"]

    def test_a_layer_that_should_not_change_is_told(self) -> None:
        found = self.check("lycoris", kohya(), {})
        assert not found.is_right and found.expected == 0
        assert "the adapter does not have it" in table([found])

    def test_an_adapter_without_layers_proves_nothing(self) -> None:
        assert not self.check("comfyui", AdapterFile({}), {}).is_right

    def test_a_layer_over_which_the_reader_stumbles_stays_as_it_was(self) -> None:
        found = self.check("comfyui", kohya(**{"lora_up.weight": torch.ones(3, 1)}))
        assert found.layers[0].fault and found.covered == 0
        assert "stays as it was, factors [3, 1] and [1, 2] for a weight [2, 2]" in table([found])

    @pytest.mark.parametrize("reader", ["lycoris", "diffusers", "forge", "sd_scripts"])
    def test_some_stop_at_a_layer_that_does_not_fit(self, reader: str) -> None:
        found = self.check(reader, kohya(**{"lora_up.weight": torch.ones(3, 1)}))
        assert found.refusal.startswith(LAYER) and found.refusal.endswith("at which it stops")
        assert found.covered == 0 and not found.is_right

    def test_who_refuses_says_why(self) -> None:
        tensors = {key: t for key, t in kohya().tensors.items() if not key.endswith("alpha")}
        found = self.check("lycoris", AdapterFile(tensors))
        assert "has no alpha" in found.refusal and not found.is_right
        assert "refused" in table([found]) and "lycoris: loads nothing: " in table([found])

    @pytest.mark.parametrize("unmatched", [12, 13])
    def test_forge_takes_a_file_with_thirteen_foreign_keys_for_another_models(self, unmatched: int) -> None:
        foreign = {f"unet.layer{k}.lora_magnitude_vector.weight": MAGNITUDE for k in range(unmatched)}
        found = self.check("forge", AdapterFile({**kohya().tensors, **foreign}), {LAYER: V})
        assert found.is_right == (unmatched <= 12)
        assert bool(found.refusal) == (unmatched > 12)

    @pytest.mark.parametrize(("dtype", "unit"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
    def test_half_precision_is_allowed_what_it_can_explain_and_no_more(self, dtype: torch.dtype, unit: float) -> None:
        down = torch.tensor([[1.0 + 0.9 * unit, 0.0]])
        right = W0 + 2 * UP @ down
        rounded = kohya(**{"lora_down.weight": down.to(dtype), "lora_up.weight": UP.to(dtype)})
        found = self.check("comfyui", rounded, {LAYER: right})
        (layer,) = found.layers
        assert layer.error > 1e-5 and found.is_right
        assert layer.rounding == pytest.approx((2 * unit + unit**2) * 2 / (2 * (1 + 0.9 * unit)), rel=0.01)
        assert found.dtypes == {str(dtype).removeprefix("torch."): 2, "float32": 1}
        twice = W0 + 2 * UP @ (down * (1 + 4 * unit))
        assert not self.check("comfyui", rounded, {LAYER: twice}).is_right

    def test_a_rounded_magnitude_may_move_the_whole_row(self) -> None:
        exact = torch.tensor([[10 * (1 + 0.9 * 2**-9)], [1.0]])
        right = {LAYER: V * exact / torch.tensor([[41**0.5], [2.0]])}
        assert self.check("lycoris", kohya(dora_scale=exact.bfloat16()), right).is_right
        assert not self.check("lycoris", kohya(dora_scale=exact.bfloat16().float()), right).is_right

    def test_json_is_json_and_has_every_layer(self) -> None:
        document = json.loads(json.dumps(as_json(self.check("comfyui", kohya(dora_scale=MAGNITUDE)))))
        assert document["right"] is False and document["layers_covered"] == 1
        assert document["layers"][0]["name"] == LAYER

    def test_an_untrained_adapter_is_right_by_its_weights_alone(self) -> None:
        found = self.check("comfyui", kohya(**{"lora_up.weight": torch.zeros(2, 1)}), {LAYER: W0})
        assert found.is_right and found.layers[0].of_change is None

    def test_a_change_below_what_float32_shows_is_no_fault(self) -> None:
        tiny = 1e-6 * UP
        right = W0 + 2 * tiny @ DOWN
        assert self.check("comfyui", kohya(**{"lora_up.weight": tiny * 1.001}), {LAYER: right}).is_right


class TestFiles:
    """What is opened, and what is not judged."""

    @pytest.mark.parametrize("mark", [".hada_w1_a", ".lokr_w1", ".lora_mid.weight", ".oft_blocks"])
    def test_other_kinds_of_adapters_are_not_judged(self, mark: str, tmp_path: Path) -> None:
        save_file({f"{KEY}{mark}": DOWN}, tmp_path / "a.safetensors")
        with pytest.raises(FormatError, match="holds a .*can be verified"):
            read_adapter_file(tmp_path / "a.safetensors")

    def test_numbers_that_are_none_are_refused(self, tmp_path: Path) -> None:
        save_file({f"{KEY}.alpha": torch.tensor(float("nan"))}, tmp_path / "a.safetensors")
        with pytest.raises(FormatError, match="not finite"):
            read_adapter_file(tmp_path / "a.safetensors")

    @pytest.mark.parametrize(
        ("tensors", "header", "told"),
        [
            ({f"{KEY}.alpha": torch.ones(3)}, {}, "is one number"),
            ({f"{KEY}.lora_down.weight": torch.ones(0, 2)}, {}, "an empty tensor"),
            ({f"{KEY}.alpha": ALPHA}, {"lora_adapter_metadata": "{"}, "cannot be read"),
            ({f"{KEY}.alpha": ALPHA}, {"lora_adapter_metadata": "[]"}, "holds no settings"),
        ],
    )
    def test_a_file_that_makes_no_sense_is_refused(self, tensors, header, told: str, tmp_path: Path) -> None:
        save_file(tensors, tmp_path / "a.safetensors", {"format": "pt", **header})
        with pytest.raises(FormatError, match=told):
            read_adapter_file(tmp_path / "a.safetensors")

    def test_lost_magnitudes_of_a_text_encoder_are_counted(self) -> None:
        layer = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
        parts = {"lora_A.weight": DOWN, "lora_B.weight": 2 * UP, "lora_magnitude_vector": MAGNITUDE.flatten()}
        file = AdapterFile({f"{layer}.{part}": tensor for part, tensor in parts.items()})
        whole = BaseWeights("sd1", {layer: W0})
        kept = V * torch.tensor([[5 / 41**0.5], [1.0]])  # the base's own row norms
        found = verify(file, READERS.load("diffusers"), whole, {layer: kept})
        assert found.is_right and "drops 1 magnitudes of text_encoder" in found.remarks[0]

    def test_a_folder_needs_pefts_folders(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="without adapters"):
            read_adapter_file(tmp_path)
        (tmp_path / "unet").mkdir()
        (tmp_path / "unet" / "adapter_config.json").write_text("{")
        save_file({"a": DOWN}, tmp_path / "unet" / "adapter_model.safetensors")
        with pytest.raises(FormatError, match="adapter_config.json cannot be read"):
            read_adapter_file(tmp_path)


@pytest.mark.parametrize(
    ("path", "original"),
    [
        ("conv_in", "input_blocks.0.0"),
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        ("down_blocks.2.resnets.1.conv1", "input_blocks.8.0.in_layers.2"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
        ("mid_block.attentions.0.proj_out", "middle_block.1.proj_out"),
        ("up_blocks.1.resnets.2.conv_shortcut", "output_blocks.5.0.skip_connection"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.1.conv"),
        ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
        ("add_embedding.linear_2", "label_emb.0.2"),
    ],
)
def test_the_original_names_of_layers(path: str, original: str) -> None:
    """From the table of CompVis' and Stability's checkpoints; two resnets a level, no attention in the first one up."""
    layout = ["down_blocks.0.resnets.0.conv1", "down_blocks.0.resnets.1.conv1", "up_blocks.1.attentions.0.proj_in"]
    assert ldm_paths([*layout, path])[path] == original


def proved(family: str, precision: str, folder: Path) -> Iterator[tuple[str, AdapterState, Verification]]:
    """Every format that is for a reader, in each of its readers' hands."""
    model = slim_base(family)
    weights = LoadedBase(model)
    whole = BaseWeights(family, dict(weights.weights))
    states = {kind: moved_on(model, kind, targets=".") for kind in ("dora", "lora")}
    for name in FORMATS:
        form = FORMATS.load(name)
        state = states["lora" if name == "lora" else "dora"]
        expected = Merged(state, whole.weights)
        target = folder / f"{name}{form.suffix}"
        for number, reader in enumerate(readers_of(name)):
            if number == 0:
                form.write(state, target, weights, precision)
            yield name, state, verify(read_adapter_file(target), READERS.load(reader), whole, expected)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_every_format_is_right_in_the_readers_it_is_for(family: str, tmp_path: Path) -> None:
    for name, state, found in proved(family, "fp32", tmp_path):
        assert found.is_right, f"{name}: {table([found])}"
        assert found.covered == found.expected == len(state.layers)
        assert found.worst_error <= 1e-6 and found.worst_of_change <= 1e-4 and found.worst_rounding == 0
        if name != "dual":  # of which every reader uses a half
            assert [key for key in found.left_over if not key.startswith("dora_diffusion.")] == []


class FullSize:
    """A base of full size, as far as its layers' names and shapes go."""

    def __init__(self, family: str):
        self.name, self.family = "full size", family
        shapes = full_size_shapes(family)
        self.weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", ["diffusers", "peft", "kohya", "comfyui", "dual"])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_every_layer_of_full_size_is_found_and_nothing_left_over(family: str, name: str, tmp_path: Path) -> None:
    """By a plain LoRA, whose names are a DoRA's; the projection of SDXL's second text encoder aside, see the docs."""
    base = FullSize(family)
    state = full_size_state(family, "lora")
    state = replace(state, layers={k: v for k, v in state.layers.items() if not k.endswith("text_projection")})
    form = FORMATS.load(name)
    form.write(state, tmp_path / f"a{form.suffix}", base)
    file = read_adapter_file(tmp_path / f"a{form.suffix}")
    for reader in readers_of(name):
        reading = READERS.load(reader).find(file, BaseWeights(family, base.weights))
        assert not reading.refusal and reading.layers.keys() == state.layers.keys()
        assert [key for key in reading.left_over if not key.startswith("dora_diffusion.")] == []


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_in_half_precision_it_is_right_within_what_is_told(precision: str, tmp_path: Path) -> None:
    for name, _, found in proved("sd1", precision, tmp_path):
        assert found.is_right, f"{name}: {table([found])}"
        assert 0 < found.worst_of_change <= found.worst_rounding < 0.05


def test_expected_weights_are_made_one_at_a_time() -> None:
    layer = LayerState(DOWN, UP, 2.0, MAGNITUDE.flatten(), (2, 2))
    made = Merged(AdapterState("dora", {LAYER: layer}), {LAYER: W0})
    assert list(made) == [LAYER] and len(made) == 1
    assert torch.allclose(made[LAYER], V * torch.tensor([[10 / 41**0.5], [0.5]]), rtol=1e-6)
