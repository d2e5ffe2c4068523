"""LyCORIS's own modules make adapters of a base: the file, and the weights they themselves merge.

    python lycoris_maker.py CHECKOUT jobs.json

A job names a base's folder, the norms ("rows", "columns", or none for a plain LoRA), and where file and answer go.
Layers are called as ``lycoris.kohya`` calls them: a prefix and the path, its dots underscores.
"""

import json
import sys
from pathlib import Path

import torch
from kit import Answer, Base, stand_in, write
from lycoris_worker import models
from safetensors.torch import save_file

RANK, ALPHA = 4, 6.0


@torch.no_grad()
def make(base: Base, norms: str, file: Path) -> Answer:
    from lycoris.modules.locon import LoConModule

    torch.manual_seed(0)
    tensors, answer = {}, {}
    for name, layer in models(base)[2].items():
        module = LoConModule(
            called(base, name),
            layer,
            lora_dim=RANK,
            alpha=ALPHA,
            weight_decompose=bool(norms),
            wd_on_out=norms == "rows",
        )
        module.lora_up.weight.normal_(std=0.05)
        if norms:
            module.dora_scale.mul_(1 + 0.05 * torch.randn(module.dora_scale.shape))
        tensors |= {f"{module.lora_name}.{key}": value.clone() for key, value in module.custom_state_dict().items()}
        answer[name] = module.get_merged_weight(shape=layer.weight.shape)[0].clone()
    save_file({key: value.contiguous() for key, value in tensors.items()}, file, {"ss_network_module": "lycoris.kohya"})
    return Answer(answer)


def called(base: Base, name: str) -> str:
    component, _, path = name.partition(".")
    if component == "unet":
        path = base.original[path] if base.family == "sdxl" else path
        return f"lora_unet_{path.replace('.', '_')}"
    number = {"text_encoder": "1", "text_encoder_2": "2"}[component] if base.family == "sdxl" else ""
    return f"lora_te{number}_{path.replace('.', '_')}"


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    stand_in("einops", "toml")
    for job in json.loads(Path(sys.argv[2]).read_text()):
        write(make(Base(Path(job["base"])), job["norms"], Path(job["file"])), Path(job["answer"]))
