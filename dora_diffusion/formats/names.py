"""One layer, many spellings: our canonical names, kohya's, the original checkpoints', old diffusers' and OneTrainer's.

    canonical      unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q
    kohya          lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q    (SD 1.x, 2.x)
    kohya, SDXL    lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q
    original       input_blocks.4.1.transformer_blocks.0.attn1.to_q
    OneTrainer     unet.input_blocks.4.1.transformer_blocks.0.attn1.to_q
    old diffusers  unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q

Names joined by underscores are taken apart by the words that paths are made of, the longest first; blocks are numbered
by arithmetic on how many resnets a block has. So nothing is listed layer by layer.

Learnt words have spellings too, which ``word_of`` knows: ``bundle_emb.<trigger>.string_to_param.*`` of SD 1.x and 2.x,
``bundle_emb.<trigger>.clip_l`` and ``.clip_g`` of XL (A1111 reads them since its pull request 13568, OneTrainer writes
them, ComfyUI and Forge do not look), and ``dora_diffusion.lora_tokens.<text encoder>``, our own.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_COMPONENTS = {
    "lora_unet": "unet",
    "diffusion_model": "unet",
    "unet": "unet",
    "lora_te2": "text_encoder_2",
    "text_encoder_2": "text_encoder_2",
    "clip_g": "text_encoder_2",
    "lora_te1": "text_encoder",
    "lora_te": "text_encoder",
    "text_encoder": "text_encoder",
    "clip_l": "text_encoder",
}
_WORDS = re.findall(
    r"\w+",
    """
    down_blocks up_blocks mid_block resnets attentions downsamplers upsamplers transformer_blocks attn1 attn2 processor
    to_q to_k to_v to_out ff net proj proj_in proj_out conv conv1 conv2 conv_in conv_out conv_shortcut time_emb_proj
    time_embedding add_embedding linear_1 linear_2
    input_blocks middle_block output_blocks in_layers out_layers emb_layers skip_connection time_embed label_emb op out
    text_model encoder layers self_attn q_proj k_proj v_proj out_proj mlp fc1 fc2 text_projection
""",
)
_TOKEN = re.compile(rf"({'|'.join(sorted(_WORDS, key=len, reverse=True))}|\d+)(?:_|$)")

# (diffusers, original), inside a resnet and at the ends of a UNet.
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
}
_RESNET_BACK = {original: ours for ours, original in _RESNET.items()}
_ENDS_BACK = {original: ours for ours, original in _ENDS.items()}
_OWN_WORDS = "dora_diffusion.lora_tokens."
_MIDDLE = {("resnets", "0"): "0", ("attentions", "0"): "1", ("resnets", "1"): "2"}
_MIDDLE_BACK = {place: part for part, place in _MIDDLE.items()}


@dataclass(frozen=True)
class Layout:
    """How a UNet's blocks are numbered in original checkpoints.

    Args:
        resnets: in a down block; an up block has one more.
        bare_up_blocks: up blocks with an upsampler and without attentions, where it stands in the attention's place.
    """

    resnets: int = 2
    bare_up_blocks: frozenset[int] = frozenset()

    @classmethod
    def of(cls, names: Iterable[str]) -> "Layout":
        """From all canonical layer names of a base."""
        paths = [name.removeprefix("unet.") for name in names if name.startswith("unet.")]
        resnets = {int(m[1]) for path in paths if (m := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", path))}
        up = {int(m[1]) for path in paths if (m := re.match(r"up_blocks\.(\d+)\.upsamplers\.", path))}
        attended = {int(m[1]) for path in paths if (m := re.match(r"up_blocks\.(\d+)\.attentions\.", path))}
        return cls(len(resnets), frozenset(up - attended))

    def to_text(self) -> str:
        """For a file's header."""
        return " ".join(str(number) for number in (self.resnets, *sorted(self.bare_up_blocks)))

    @classmethod
    def from_text(cls, text: str) -> "Layout":
        """Raises: ValueError: it is no such text."""
        resnets, *bare = (int(number) for number in text.split())
        if resnets < 1:
            raise ValueError(text)
        return cls(resnets, frozenset(bare))


SDXL_LAYOUT = Layout()
SD_LAYOUT = Layout(bare_up_blocks=frozenset({0}))


def canonical(spelling: str, layout: Layout = SDXL_LAYOUT) -> str | None:
    """The canonical name of a layer, however it is spelled; None for one that Stable Diffusion 1, 2 and XL lack.

    Args:
        layout: of the UNet, where the spelling is the original's.
    """
    joined = spelling.replace(".", "_")
    for prefix in sorted(_COMPONENTS, key=len, reverse=True):
        if joined.startswith(f"{prefix}_"):
            path = _split(joined.removeprefix(f"{prefix}_"))
            return None if path is None else _name(_COMPONENTS[prefix], path, layout)
    return None


def _split(joined: str) -> str | None:
    """``down_blocks_1_resnets_0_conv1`` as ``down_blocks.1.resnets.0.conv1``; None: an unknown word, or none."""
    words, at = [], 0
    while at < len(joined):
        token = _TOKEN.match(joined, at)
        if token is None:
            return None
        words.append(token[1])
        at = token.end()
    return ".".join(words) or None


def _name(component: str, path: str, layout: Layout) -> str | None:
    if component != "unet":
        if not path.startswith(("text_model.", "text_projection")):
            path = f"text_model.{path}"
        return f"{component}.{path}"
    path = re.sub(r"\.processor(?=\.)", "", path)
    path = re.sub(r"\.to_out$", ".to_out.0", path)
    if path.startswith(("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")):
        found = from_original(path, layout)
        return None if found is None else f"unet.{found}"
    return f"unet.{path}"


def to_original(path: str, layout: Layout) -> str:
    """A UNet's diffusers path as original checkpoints have it (CompVis' "ldm", Stability's "sgm")."""
    if path in _ENDS:
        return _ENDS[path]
    side, *parts = path.split(".")
    if side == "mid_block":
        return f"middle_block.{_MIDDLE[parts[0], parts[1]]}.{_inside(parts[0], parts[2:])}"
    block, part, index, inner = int(parts[0]), parts[1], int(parts[2]), parts[3:]
    per_block = layout.resnets + 1
    if part == "downsamplers":
        return f"input_blocks.{(block + 1) * per_block}.0.op"
    if part == "upsamplers":
        return f"output_blocks.{(block + 1) * per_block - 1}.{1 if block in layout.bare_up_blocks else 2}.conv"
    first, blocks = (1, "input_blocks") if side == "down_blocks" else (0, "output_blocks")
    return f"{blocks}.{first + block * per_block + index}.{int(part == 'attentions')}.{_inside(part, inner)}"


def _inside(part: str, inner: list[str]) -> str:
    path = ".".join(inner)
    return _RESNET[path] if part == "resnets" else path


def from_original(path: str, layout: Layout) -> str | None:
    """The inverse of ``to_original``; None for a path that no such UNet has."""
    if path in _ENDS_BACK:
        return _ENDS_BACK[path]
    match = re.fullmatch(r"(input_blocks|output_blocks)\.(\d+)\.(\d)\.(.+)", path)
    if match is None:
        return _from_middle(path)
    blocks, number, place, inner = match[1], int(match[2]), int(match[3]), match[4]
    down = blocks == "input_blocks"
    block, index = divmod(number - 1 if down else number, layout.resnets + 1)
    side = f"{'down' if down else 'up'}_blocks.{block}"
    if down and index == layout.resnets:
        return f"{side}.downsamplers.0.conv" if (place, inner) == (0, "op") else None
    if not down and inner == "conv" and place in (1, 2):
        return f"{side}.upsamplers.0.conv" if index == layout.resnets else None
    return _from_part(side, ("resnets", "attentions")[place], str(index), inner) if place < 2 and block >= 0 else None


def _from_middle(path: str) -> str | None:
    match = re.fullmatch(r"middle_block\.([012])\.(.+)", path)
    return None if match is None else _from_part("mid_block", *_MIDDLE_BACK[match[1]], match[2])


def _from_part(side: str, part: str, index: str, inner: str) -> str | None:
    if part == "resnets":
        inner = _RESNET_BACK.get(inner, "")
    return f"{side}.{part}.{index}.{inner}" if inner else None


def kohya(name: str, family: str, layout: Layout = SDXL_LAYOUT) -> str:
    """What kohya's tools call a layer: SDXL's UNet by the original's names, other UNets by diffusers'."""
    component, _, path = name.partition(".")
    if component == "unet":
        prefix = "lora_unet"
        path = to_original(path, layout) if family == "sdxl" else path
    elif family == "sdxl":
        prefix = "lora_te2" if component == "text_encoder_2" else "lora_te1"
    else:
        prefix = "lora_te"
    return f"{prefix}_{path.replace('.', '_')}"


def old_diffusers(name: str) -> str:
    """What a layer was called when attention's adapters sat in processors: ``attn1.processor.to_out``."""
    return re.sub(r"\.(attn\d+)\.(to_q|to_k|to_v|to_out)(\.0)?$", r".\1.processor.\2", name)


def word_of(key: str) -> tuple[str, str] | None:
    """(trigger, text encoder) of a learnt word's rows; None for a layer's key. No trigger: the header says it."""
    if key.startswith(_OWN_WORDS):
        return "", key.removeprefix(_OWN_WORDS)
    match = re.fullmatch(r"bundle_emb\.(.+?)\.(string_to_param\.)?(\*|clip_l|clip_g)", key)
    return None if match is None else (match[1], _COMPONENTS.get(match[3], "text_encoder"))


def family_of(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The family whose originals have layers of these shapes, by canonical name; None where they do not tell.

    Cross-attention reads 768 features in SD 1.x, 1024 in 2.x and 2048 in XL, which alone has a second text encoder and
    stacks of transformer blocks.
    """
    features = {shape[1] for name, shape in shapes.items() if re.search(r"\.attn2\.to_[kv]$", name)}
    features |= {shape[1] for name, shape in shapes.items() if re.match(r"text_encoder\..*\.q_proj$", name)} & {1024}
    by_features = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
    found = {by_features[count] for count in features if count in by_features}
    if any(re.match(r"text_encoder_2\.|.*\.transformer_blocks\.[1-9]|unet\.add_embedding", name) for name in shapes):
        found.add("sdxl")
    return found.pop() if len(found) == 1 else None
