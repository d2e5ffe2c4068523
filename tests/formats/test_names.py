"""A layer's names in every tool: one-to-one over the layers of full-size models, and read back from any spelling."""

from collections.abc import Callable

import pytest
from full_size import COUNTS, FULL_SIZE, full_size_shapes

from dora_diffusion.formats.names import (
    SD_LAYOUT,
    SDXL_LAYOUT,
    Layout,
    canonical,
    family_of,
    from_original,
    kohya,
    old_diffusers,
    to_original,
    word_of,
)

Spell = Callable[[str, str, Layout], str]

# Read off sd-scripts' map of the SDXL UNet and off original checkpoints, not off our code.
ORIGINALS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
    "down_blocks.0.resnets.1.time_emb_proj": "input_blocks.2.0.emb_layers.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": "input_blocks.4.1.transformer_blocks.0.attn1.to_q",
    "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj": (
        "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj"
    ),
    "mid_block.resnets.0.conv1": "middle_block.0.in_layers.2",
    "mid_block.attentions.0.proj_in": "middle_block.1.proj_in",
    "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
    "up_blocks.0.attentions.2.transformer_blocks.9.attn2.to_out.0": (
        "output_blocks.2.1.transformer_blocks.9.attn2.to_out.0"
    ),
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
    "up_blocks.1.resnets.0.conv1": "output_blocks.3.0.in_layers.2",
    "up_blocks.2.resnets.2.conv_shortcut": "output_blocks.8.0.skip_connection",
}


@pytest.mark.parametrize(("path", "original"), ORIGINALS.items())
def test_the_originals_of_sdxl(path: str, original: str) -> None:
    assert to_original(path, SDXL_LAYOUT) == original
    assert from_original(original, SDXL_LAYOUT) == path


def test_the_first_upsampler_of_sd1_stands_where_others_have_attention() -> None:
    assert to_original("up_blocks.0.upsamplers.0.conv", SD_LAYOUT) == "output_blocks.2.1.conv"
    assert to_original("up_blocks.1.upsamplers.0.conv", SD_LAYOUT) == "output_blocks.5.2.conv"
    assert Layout.of(full_size_shapes("sd1")) == SD_LAYOUT and Layout.of(full_size_shapes("sdxl")) == SDXL_LAYOUT


def as_original(name: str, joint: str, unet: str, layout: Layout) -> str:
    """The original's name of a UNet's layer behind ``unet``; of a text encoder's, behind the name that goes with it."""
    component, _, path = name.partition(".")
    if component == "unet":
        return f"{unet}{to_original(path, layout).replace('.', joint)}"
    return f"{'clip_l' if component == 'text_encoder' else 'clip_g'}.{path}"


SPELLINGS = {
    "canonical": lambda name, family, layout: name,
    "kohya": kohya,
    "kohya with diffusers' names": lambda name, family, layout: name.replace("unet.", "lora_unet_").replace(".", "_"),
    "old diffusers": lambda name, family, layout: old_diffusers(name),
    "OneTrainer": lambda name, family, layout: as_original(name, ".", "unet.", layout),
    "ComfyUI": lambda name, family, layout: as_original(name, ".", "diffusion_model.", layout),
    "kohya with the original's names": lambda name, family, layout: as_original(name, "_", "lora_unet_", layout),
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("family", FULL_SIZE)
def test_every_spelling_of_every_layer_leads_back_and_no_two_are_the_same(family: str, spell: Spell) -> None:
    names = list(full_size_shapes(family))
    layout = Layout.of(names)
    assert len(names) == COUNTS[family]
    spelled = {name: spell(name, family, layout) for name in names}
    assert len(set(spelled.values())) == len(names)
    assert [name for name, key in spelled.items() if canonical(key, layout) != name] == []


def test_kohyas_prefixes() -> None:
    first = "text_encoder.text_model.encoder.layers.3.mlp.fc1"
    assert kohya(first, "sd1") == kohya(first, "sd2") == "lora_te_text_model_encoder_layers_3_mlp_fc1"
    assert kohya(first, "sdxl") == "lora_te1_text_model_encoder_layers_3_mlp_fc1"
    assert kohya(first.replace("encoder.", "encoder_2.", 1), "sdxl") == "lora_te2_text_model_encoder_layers_3_mlp_fc1"
    attention = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
    inside = "transformer_blocks_0_attn1_to_out_0"
    assert kohya(attention, "sd2") == f"lora_unet_down_blocks_1_attentions_0_{inside}"
    assert kohya(attention, "sdxl") == f"lora_unet_input_blocks_4_1_{inside}"


def test_a_text_encoder_without_the_level_that_transformers_5_dropped() -> None:
    name = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    assert canonical("text_encoder.encoder.layers.0.self_attn.q_proj") == name
    assert canonical("lora_te_encoder_layers_0_self_attn_q_proj") == name
    assert canonical("lora_te2_text_projection") == "text_encoder_2.text_projection"


@pytest.mark.parametrize(
    "spelling",
    [
        "lora_unet_double_blocks_0_img_attn_qkv",
        "lora_unet_input_blocks_4_3_proj_in",
        "lora_unet_input_blocks_1_0_in_layers_3",
        "lora_unet_middle_block_3_proj_in",
        "unet.input_blocks.0.1.proj_in",
        "lora_unet_",
        "lora_unet",
        "",
        "vae.decoder.conv_in",
        "lora_unet_output_blocks_x_1_proj_in",
    ],
)
def test_what_is_no_layer_is_told(spelling: str) -> None:
    assert canonical(spelling) is None


@pytest.mark.parametrize("family", FULL_SIZE)
def test_the_family_is_told_by_shapes(family: str) -> None:
    shapes = full_size_shapes(family)
    assert family_of(shapes) == family
    only_cross = {name: shape for name, shape in shapes.items() if ".attn2." in name}
    assert family_of(only_cross) == family
    own = {name: shape for name, shape in shapes.items() if name.endswith("down_blocks.0.resnets.0.conv1")}
    assert family_of(own) is None
    assert family_of(shapes | {"unet.x.attn2.to_k": (320, 768), "unet.y.attn2.to_k": (320, 1024)}) is None


def test_layouts_as_text() -> None:
    for layout in (SD_LAYOUT, SDXL_LAYOUT, Layout(3, frozenset({0, 2}))):
        assert Layout.from_text(layout.to_text()) == layout
    for text in ("", "x", "0", "2 y"):
        with pytest.raises(ValueError):
            Layout.from_text(text)


def test_learnt_words_are_no_layers() -> None:
    assert word_of("bundle_emb.sks.string_to_param.*") == ("sks", "text_encoder")
    assert word_of("bundle_emb.a.dotted.word.clip_l") == ("a.dotted.word", "text_encoder")
    assert word_of("bundle_emb.sks.string_to_param.clip_g") == ("sks", "text_encoder_2")
    assert word_of("dora_diffusion.lora_tokens.text_encoder_2") == ("", "text_encoder_2")
    assert word_of("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha") is None
