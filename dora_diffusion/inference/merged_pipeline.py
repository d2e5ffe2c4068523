"""One base, many subjects: adapters merged into a plain pipeline, switched in place.

What is kept: the base's bytes of every layer that some adapter has changed, and the merged weights of the adapters used
last. A switch copies only the layers that differ; switching to no adapter restores the base's bytes.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dora_diffusion.adapters import AdapterState, find_layers, merged_weights, modules_weights, warn_if_other_base
from dora_diffusion.formats import adapter_file, load_adapter
from dora_diffusion.inference.device import place
from dora_diffusion.inference.draw import Drawing, OnStep, draw
from dora_diffusion.models import BaseModel, choose_attention, load_base

Key = tuple[str, float]


class MergedWeights:
    """Switches a loaded base between adapters.

    Args:
        base: its parts must be plain (no live adapter).
        keep: how many adapters' merged weights stay ready; a switch among them computes nothing.
    """

    def __init__(self, base: BaseModel, keep: int = 4):
        self.base = base
        self._keep = keep
        self._originals: dict[str, Tensor] = {}
        self._merged: OrderedDict[Key, dict[str, Tensor]] = OrderedDict()
        self._current: set[str] = set()

    @torch.no_grad()
    def switch(self, state: AdapterState | None, strength: float = 1.0, key: str = "") -> int:
        """Make the base carry ``state`` at ``strength``, or nothing. A word it learnt comes with it at any strength.

        Args:
            key: what to remember the merged weights under; empty remembers nothing.

        Returns:
            How many layers were written.

        Raises:
            AdapterError: the adapter does not fit this base.
        """
        if state is not None and state.word is not None:
            self.base.learn_word(state.word.trigger, state.word.rows)
        else:
            self.base.forget_word()
        if state is None or strength == 0:
            return self._write({})
        modules = find_layers(self.base, state)
        weights = modules_weights(modules)
        bases = {name: self._originals.get(name, weight) for name, weight in weights.items()}
        merged = self._merged.get((key, strength)) if key else None
        if merged is None:
            warn_if_other_base(state, bases, self.base.name)
            merged = {name: weight.to(bases[name].dtype) for name, weight in merged_weights(state, bases, strength)}
            self._remember((key, strength), merged)
        return self._write(merged)

    def _remember(self, key: Key, merged: dict[str, Tensor]) -> None:
        if key[0] and self._keep:
            self._merged[key] = merged
            while len(self._merged) > self._keep:
                self._merged.popitem(last=False)

    def _write(self, merged: dict[str, Tensor]) -> int:
        targets = self._weights(self._current | merged.keys())
        for name, weight in targets.items():
            if name not in self._originals:
                self._originals[name] = weight.detach().clone()
            weight.copy_(merged.get(name, self._originals[name]))
        self._current = set(merged)
        return len(targets)

    def _weights(self, names: set[str]) -> dict[str, Tensor]:
        found = {}
        for component, root in self.base.adaptable().items():
            for path, module in root.named_modules():
                name = self.base.layer_name(component, path)
                if name in names:
                    found[name] = module.weight
        return found


class MergedPipeline:
    """A base model that draws with one subject at a time, merged in.

    Args:
        name: the base ("toybox", a folder, a hub name).
        device: "cuda", "cpu"; left out, the GPU if there is one.
        precision: "auto", "fp32", "fp16", "bf16".

    Raises:
        ModelError: the base cannot be loaded.
    """

    def __init__(self, name: str, *, device: str | None = None, precision: str = "auto", attention: str = "auto"):
        where, dtype = place(device == "cpu", precision)
        self.base = load_base(name, dtype=dtype).to(where)
        self.base.attention = choose_attention(self.base.unet, attention)
        self._weights = MergedWeights(self.base)
        self._states: dict[str, AdapterState] = {}

    def switch(self, adapter: Path | None, strength: float = 1.0) -> int:
        """Carry the adapter in this run folder or file; None is the base. Returns how many layers were written.

        Raises:
            FormatError: the file is no adapter.
            AdapterError: it does not fit this base.
        """
        if adapter is None:
            return self._weights.switch(None)
        state, key = _load_once(self._states, adapter)
        return self._weights.switch(state, strength, key)

    def draw(
        self,
        *,
        prompt: str | Sequence[str],
        seed: int = 0,
        num_images: int = 1,
        negative_prompt: str = "",
        num_inference_steps: int = 25,
        guidance_scale: float | None = None,
        sampler: str = "model",
        width: int | None = None,
        height: int | None = None,
        on_step: OnStep | None = None,
    ) -> list[Image.Image]:
        """``num_images`` pictures of each prompt, seeds counting up from ``seed``; sizes in pixels."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        drawing = Drawing(num_inference_steps, guidance_scale, negative_prompt, height, width, sampler)
        every = [p for p in prompts for _ in range(num_images)]
        seeds = [seed + k for _ in prompts for k in range(num_images)]
        return draw(self.base, every, seeds, drawing, on_step)


def _load_once(states: dict[str, AdapterState], adapter: Path) -> tuple[AdapterState, str]:
    """The adapter's state, read again only when its file changed."""
    file = adapter_file(adapter)
    stat = file.stat()
    key = f"{file.resolve()}:{stat.st_mtime_ns}:{stat.st_size}"
    if key not in states:
        states.clear()
        states[key] = load_adapter(adapter)
    return states[key], key
