"""LyCORIS's own code: a network made from the file's weights, merged into the model."""

import sys
from pathlib import Path

import torch
from kit import Answer, Base, layer, stand_in, tree, work
from safetensors.torch import load_file


def read(base: Base, file: Path) -> Answer:
    from lycoris.kohya import create_network_from_weights

    unet, texts, merged = models(base)
    text = list(texts.values()) if base.family == "sdxl" else texts["text_encoder"]
    network, weights = create_network_from_weights(1.0, None, None, text, unet, weights_sd=load_file(file))
    network.merge_to(text, unet, weights, torch.float32, "cpu")
    return Answer({name: part.weight for name, part in merged.items()})


def models(base: Base, kind=None):
    """sd-scripts' models: the UNet as diffusers' for SD 1.x and 2.x, in the original layout for XL."""
    as_original = base.family == "sdxl"
    paths = {f"unet.{path}": original if as_original else path for path, (original, _) in base.unet().items()}
    merged = {name: layer(base.weights[name]) for name in paths}
    unet = tree({path: merged[name] for name, path in paths.items()}, **({"kind": kind} if kind else {}))
    texts = {}
    for component in ("text_encoder", "text_encoder_2"):
        parts = {path: layer(weight) for path, weight in base.text(component).items()}
        if parts:
            texts[component] = tree(parts, **({"kind": kind} if kind else {}))
            merged |= {f"{component}.{path}": part for path, part in parts.items()}
    return unet, texts, merged


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    stand_in("einops", "toml")
    work(read)
