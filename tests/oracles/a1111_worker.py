"""A1111's own code: names, loading, and the weights it writes into the model's modules."""

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from kit import Answer, Base, layer, module, stand_in, tree, work
from safetensors.torch import load_file
from torch import nn

JOINT = ("q_proj", "k_proj", "v_proj")


def read(base: Base, file: Path) -> Answer:
    import networks
    from modules import shared

    unet = {f"diffusion_model.{original}": layer(weight) for _, (original, weight) in base.unet().items()}
    model = SimpleNamespace(is_sdxl=base.family == "sdxl", model=tree(unet))
    texts = {"text_encoder": _clip(base.text("text_encoder")), "text_encoder_2": _openclip(base.text("text_encoder_2"))}
    if base.family == "sd2":
        texts = {"text_encoder": _openclip(base.text("text_encoder"))}
    if base.family == "sdxl":
        wrapped = [SimpleNamespace(wrapped=tree(part)) for part in texts.values()]
        model.conditioner = SimpleNamespace(embedders=wrapped)
    else:
        model.cond_stage_model = SimpleNamespace(wrapped=tree(texts["text_encoder"]))
    shared.sd_model = model
    networks.assign_network_names_to_compvis_modules(model)
    on_disk = SimpleNamespace(filename=str(file), name="file")
    net = networks.load_network("file", on_disk)
    net.te_multiplier = net.unet_multiplier = 1.0
    networks.loaded_networks[:] = [net]
    networks.extra_network_lora = SimpleNamespace(errors={})
    for part in model.network_layer_mapping.values():
        # A module changes as its forward is called, which an attention never does with its out_proj.
        if type(part) in (nn.Linear, nn.Conv2d, nn.MultiheadAttention):
            networks.network_apply_weights(part)
    return Answer(_weights(base, unet, texts))


def _clip(paths):
    return {f"transformer.{path}": layer(weight) for path, weight in paths.items()}


def _openclip(paths):
    """OpenCLIP's blocks, q, k and v in one weight."""
    found = {}
    heads = {path.rpartition(".self_attn.")[0] for path in paths if ".self_attn." in path}
    for head in heads:
        block = f"model.transformer.resblocks.{head.rpartition('.')[2]}"
        width = paths[f"{head}.self_attn.q_proj"].shape[0]
        attention = nn.MultiheadAttention(width, 1, bias=False)
        attention.in_proj_weight.data.copy_(torch.cat([paths[f"{head}.self_attn.{part}"] for part in JOINT]))
        attention.out_proj.weight.data.copy_(paths[f"{head}.self_attn.out_proj"])
        attention.requires_grad_(False)
        found[f"{block}.attn"] = attention
        found[f"{block}.mlp.c_fc"] = layer(paths[f"{head}.mlp.fc1"])
        found[f"{block}.mlp.c_proj"] = layer(paths[f"{head}.mlp.fc2"])
    return found


def _weights(base: Base, unet, texts):
    merged = {f"unet.{path}": unet[f"diffusion_model.{original}"].weight for path, (original, _) in base.unet().items()}
    for component, parts in texts.items():
        for path in base.text(component):
            if f"transformer.{path}" in parts:
                merged[f"{component}.{path}"] = parts[f"transformer.{path}"].weight
            elif ".layers." in path:
                merged[f"{component}.{path}"] = _from_block(parts, path)
    return merged


def _from_block(parts, path):
    number, inner = path.partition(".layers.")[2].split(".", 1)
    block = f"model.transformer.resblocks.{number}"
    if inner.startswith("mlp"):
        return parts[f"{block}.mlp.{'c_fc' if inner.endswith('fc1') else 'c_proj'}"].weight
    last = inner.rpartition(".")[2]
    attention = parts[f"{block}.attn"]
    if last == "out_proj":
        return attention.out_proj.weight
    return attention.in_proj_weight.chunk(3)[JOINT.index(last)]


if __name__ == "__main__":
    checkout = Path(sys.argv[1])
    sys.path.insert(0, str(checkout / "extensions-builtin" / "Lora"))
    stand_in("einops")
    # The web interface around the arithmetic.
    module("gradio")
    options = SimpleNamespace(lora_dir=tempfile.mkdtemp(), lyco_dir_backcompat="nowhere")
    module("modules")
    module(
        "modules.shared",
        cmd_opts=options,
        opts=SimpleNamespace(lora_in_memory_limit=0),
        walk_files=lambda *_, **__: [],
        sd_model=None,
    )
    module("modules.devices", cpu=torch.device("cpu"), device=torch.device("cpu"), dtype=torch.float32)
    module("modules.sd_models", read_state_dict=lambda path: load_file(path))
    for part in ("cache", "errors", "hashes", "scripts", "sd_hijack", "patches"):
        module(f"modules.{part}")
    module("modules.textual_inversion")
    module(
        "modules.textual_inversion.textual_inversion",
        create_embedding_from_data=lambda data, name, filename: SimpleNamespace(name=name),
    )
    module("modules.models")
    module("modules.models.sd3")
    module("modules.models.sd3.mmdit", QkvLinear=type("QkvLinear", (nn.Linear,), {}))
    work(read)
