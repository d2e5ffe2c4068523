"""The named choices of every kind of part: one line a part.

A registry maps a name to ``"module:attribute"``. Reading the names imports nothing, so ``--help`` can list every choice
without torch; ``load`` imports the one part that is used. Contract tests run over every name.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from dora_diffusion.errors import ConfigError


class Registry:
    """The named choices for one kind of part. Fixed when made; nothing registers itself.

    Args:
        kind: what the names are, in the words of an error message ("adapter kind").
        parts: name to ``"module:attribute"``.
    """

    def __init__(self, kind: str, parts: Mapping[str, str]):
        self.kind = kind
        self._parts = dict(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def check(self, name: str) -> str:
        """Return ``name`` if it is known.

        Raises:
            ConfigError: it is not; the message lists the known names and the nearest one.
        """
        if name in self._parts:
            return name
        raise ConfigError(
            f"Unknown {self.kind} {name!r}; known: {', '.join(self._parts)}.{did_you_mean(name, self._parts)}"
        )

    def load(self, name: str) -> Any:
        """Import the part called ``name``.

        Raises:
            ConfigError: the name is unknown.
        """
        module, attribute = self._parts[self.check(name)].split(":")
        return getattr(import_module(module), attribute)


def did_you_mean(word: str, known: Mapping[str, object] | list[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest known word, or nothing."""
    near = get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


ADAPTERS = Registry(
    "adapter kind",
    {
        "dora": "dora_diffusion.adapters.dora:DORA",
        "lora": "dora_diffusion.adapters.lora:LORA",
    },
)

FAMILIES = Registry(
    "model family",
    {
        "sd1": "dora_diffusion.models.sd1:SD1",
        "sd2": "dora_diffusion.models.sd2:SD2",
        "sdxl": "dora_diffusion.models.sdxl:SDXL",
    },
)

ATTENTION_BACKENDS = Registry(
    "attention backend",
    {
        "sdpa": "dora_diffusion.models.attention:SDPA",
        "flash": "dora_diffusion.models.attention:FLASH",
        "xformers": "dora_diffusion.models.attention:XFORMERS",
    },
)

FORMATS = Registry(
    "export format",
    {
        "diffusers": "dora_diffusion.formats.diffusers_format:DIFFUSERS",
        "peft": "dora_diffusion.formats.peft_format:PEFT",
        "kohya": "dora_diffusion.formats.kohya_format:KOHYA",
        "comfyui": "dora_diffusion.formats.comfyui_format:COMFYUI",
        "dual": "dora_diffusion.formats.dual_format:DUAL",
        "diff": "dora_diffusion.formats.diff_format:DIFF",
        "lora": "dora_diffusion.formats.lora_format:LORA",
    },
)

READERS = Registry(
    "reader of adapter files",
    {
        "diffusers": "dora_diffusion.formats.verify.diffusers_reader:DIFFUSERS",
        "peft": "dora_diffusion.formats.verify.peft_reader:PEFT",
        "comfyui": "dora_diffusion.formats.verify.comfyui_reader:COMFYUI",
        "forge": "dora_diffusion.formats.verify.forge_reader:FORGE",
        "a1111": "dora_diffusion.formats.verify.a1111_reader:A1111",
        "lycoris": "dora_diffusion.formats.verify.lycoris_reader:LYCORIS",
        "sd_scripts": "dora_diffusion.formats.verify.sd_scripts_reader:SD_SCRIPTS",
    },
)

SAMPLERS = Registry(
    "sampler",
    {
        "ddim": "diffusers:DDIMScheduler",
        "euler": "diffusers:EulerDiscreteScheduler",
        "dpmpp_2m": "diffusers:DPMSolverMultistepScheduler",
        "unipc": "diffusers:UniPCMultistepScheduler",
    },
)

OPTIMIZERS = Registry(
    "optimizer",
    {
        "adamw": "dora_diffusion.training.optimizers.adamw:ADAMW",
        "adamw8bit": "dora_diffusion.training.optimizers.adamw8bit:ADAMW8BIT",
        "prodigy": "dora_diffusion.training.optimizers.prodigy:PRODIGY",
        "adafactor": "dora_diffusion.training.optimizers.adafactor:ADAFACTOR",
        "lion": "dora_diffusion.training.optimizers.lion:LION",
        "adamw_schedule_free": "dora_diffusion.training.optimizers.adamw_schedule_free:ADAMW_SCHEDULE_FREE",
    },
)

COMMANDS = Registry(
    "command",
    {
        "demo": "dora_diffusion.cli.demo:run",
        "train": "dora_diffusion.cli.train:run",
        "generate": "dora_diffusion.cli.generate:run",
        "merge": "dora_diffusion.cli.merge:run",
        "export": "dora_diffusion.cli.export:run",
        "convert": "dora_diffusion.cli.convert:run",
        "resize": "dora_diffusion.cli.resize:run",
        "combine": "dora_diffusion.cli.combine:run",
        "extract": "dora_diffusion.cli.extract:run",
        "inspect": "dora_diffusion.cli.inspect:run",
        "verify": "dora_diffusion.cli.verify:run",
        "evaluate": "dora_diffusion.cli.evaluate:run",
        "doctor": "dora_diffusion.cli.doctor:run",
        "app": "dora_diffusion.cli.app:run",
    },
)

# In the order of the page, from left to right.
TABS = Registry(
    "tab of the studio",
    {
        "teach": "dora_diffusion.studio.ui.teach:TEACH",
        "create": "dora_diffusion.studio.ui.create:CREATE",
        "compare": "dora_diffusion.studio.ui.compare:COMPARE",
        "subjects": "dora_diffusion.studio.ui.subjects:SUBJECTS",
        "export": "dora_diffusion.studio.ui.export:EXPORT",
    },
)
