"""What every optimizer answers: what it needs, which settings it has no use for, and how it is made."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import ModuleType
from typing import ClassVar

import torch

from dora_diffusion.adapters import Adapter
from dora_diffusion.config import OptimConfig
from dora_diffusion.errors import ConfigError
from dora_diffusion.machine import require_package

PRODIGY_SETTINGS = frozenset(
    {"prodigy_beta3", "prodigy_decouple", "prodigy_use_bias_correction", "prodigy_safeguard_warmup"}
)
MOMENT_SETTINGS = frozenset({"adam_beta1", "adam_beta2", "adam_epsilon"})


class OptimizerKind(ABC):
    """One optimizer. State is float32 wherever the optimizer does not exist for less.

    ``package``: as it is imported, of the extra "optim"; None where the package's own requirements bring it.
    ``ignored``: the settings of ``OptimConfig`` that it has no use for. ``beta2``: its usual second decay.
    """

    name: ClassVar[str]
    package: ClassVar[str | None] = None
    ignored: ClassVar[frozenset[str]] = PRODIGY_SETTINGS
    beta2: ClassVar[float] = 0.999

    def check(self, config: OptimConfig, device: torch.device) -> None:
        """See that a run can use it, before anything is loaded.

        Raises:
            ConfigError: a setting is given that it would ignore.
            MachineError: its package is missing, or does not work on ``device``.
        """
        for name in sorted(self.ignored):
            given, default = getattr(config, name), OptimConfig.model_fields[name].default
            if given != default:
                raise ConfigError(f"optimizer {self.name} has no use for {name}, got {given}. Leave {name} out.")
        if self.package is not None:
            self.imported()

    def notes(self, config: OptimConfig) -> Iterator[str]:
        """What the user should know about these settings with this optimizer."""
        yield from ()

    def imported(self) -> ModuleType:
        """Its package. Raises: MachineError: it is not installed."""
        assert self.package is not None
        return require_package(self.package, "optim", f"--optimizer {self.name}")

    def betas(self, config: OptimConfig) -> tuple[float, float]:
        """Both decays, the second its usual one unless given."""
        return config.adam_beta1, self.beta2 if config.adam_beta2 is None else config.adam_beta2

    def make(self, adapter: Adapter, config: OptimConfig) -> torch.optim.Optimizer:
        """The optimizer over ``adapter``'s buffers; every group says its "component"."""
        optimizer = self.build(adapter, config)
        optimizer.register_step_post_hook(_tell_autograd)
        return optimizer

    @abstractmethod
    def build(self, adapter: Adapter, config: OptimConfig) -> torch.optim.Optimizer:
        """The package's optimizer over ``parameter_groups``."""


def _tell_autograd(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Count the step as a change of every parameter, which is what the adapter goes by.

    Some packages write through ``.data`` or with kernels of their own, behind torch's back.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            torch.autograd.graph.increment_version(parameter)
