"""Where to draw, and in which precision."""

import torch

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "no": torch.float32}


def place(cpu: bool, precision: str = "auto") -> tuple[torch.device, torch.dtype]:
    """The device, and the dtype behind "auto", "fp32", "fp16", "bf16"; auto is fp32 on a CPU and fp16 on a GPU."""
    device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    if precision == "auto":
        return device, torch.float32 if device.type == "cpu" else torch.float16
    return device, PRECISIONS[precision]
