"""The frozen weights behind an adapter, loaded when a writer asks for them."""

from collections.abc import Mapping
from functools import cached_property, partial

from torch import Tensor, nn

from dora_diffusion.adapters import AdapterState
from dora_diffusion.adapters.fingerprint import differing_layers
from dora_diffusion.errors import AdapterError, ConfigError
from dora_diffusion.formats.base_files import BaseFiles, Tensors, open_base
from dora_diffusion.formats.format import Base
from dora_diffusion.models import BaseModel


class LoadedBase:
    """A model in memory as formats see it: weights are copied one at a time, as they are now."""

    def __init__(self, model: BaseModel):
        self.name = model.name
        self.family = model.family.name
        self.weights: Mapping[str, Tensor] = Tensors(
            {
                model.layer_name(component, path): partial(_read, module)
                for component, root in model.adaptable().items()
                for path, module in root.named_modules()
                if isinstance(module, nn.Linear | nn.Conv2d)
            }
        )


def _read(module: nn.Linear | nn.Conv2d) -> Tensor:
    return module.weight.detach().float().cpu()


class BaseByName:
    """A model whose files are opened once something is asked of it, and read one weight at a time.

    Args:
        name: as ``models.load_base`` takes it; empty if nobody knows it.
    """

    def __init__(self, name: str):
        self.name = name

    @cached_property
    def _opened(self) -> BaseFiles:
        if not self.name:
            raise ConfigError(
                "The base model is needed, and the adapter does not say which it was trained on. Give "
                "--pretrained_model_name_or_path."
            )
        return open_base(self.name)

    @property
    def family(self) -> str:
        return self._opened.family

    @property
    def weights(self) -> Mapping[str, Tensor]:
        return self._opened.weights


def weights_for(state: AdapterState, base: Base | None, what: str) -> Mapping[str, Tensor]:
    """The base's weights, known to be those the adapter was trained on: a file made from others would be wrong.

    Args:
        what: needs them, for messages ("The format 'dual'").

    Raises:
        ConfigError: there is no base.
        AdapterError: it lacks a layer, has one of another shape, or is another checkpoint.
        ModelError: it cannot be loaded.
    """
    if base is None:
        raise ConfigError(
            f"{what} needs the weights of the base the adapter was trained on. Give --pretrained_model_name_or_path."
        )
    weights = base.weights
    missing = [name for name in state.layers if name not in weights]
    if missing:
        raise AdapterError(
            f"{what} needs the base the adapter was trained on ({state.base_name or 'unknown'}); {base.name} lacks "
            f"{len(missing)} of its {len(state.layers)} layers, first {missing[0]}."
        )
    differing: list[str] = []
    for name, layer in state.layers.items():
        weight = weights[name]  # one at a time: together they may be larger than memory
        rows, columns = layer.B.shape[0], layer.A.shape[1]
        if weight.shape[0] != rows or weight.numel() != rows * columns:
            raise AdapterError(
                f"{what} needs the base the adapter was trained on ({state.base_name or 'unknown'}); {name} is "
                f"{list(weight.shape)} in {base.name} and {rows}x{columns} in the adapter."
            )
        differing += differing_layers(state.fingerprint, {name: weight})
    if differing:
        raise AdapterError(
            f"{what} needs the very base the adapter was trained on ({state.base_name or 'unknown'}); the weights of "
            f"{base.name} differ from it in {len(differing)} of {len(state.layers)} layers, first {differing[0]}. "
            "Give that base with --pretrained_model_name_or_path."
        )
    return weights
