"""The frozen weights behind an adapter, loaded when a writer asks for them."""

from collections.abc import Iterator, Mapping
from functools import cached_property

from torch import Tensor, nn

from dora_diffusion.adapters import AdapterState
from dora_diffusion.adapters.fingerprint import differing_layers
from dora_diffusion.errors import AdapterError, ConfigError
from dora_diffusion.formats.base_files import BaseFiles, open_base
from dora_diffusion.formats.format import Base
from dora_diffusion.models import BaseModel


class ModelWeights(Mapping[str, Tensor]):
    """Every Linear and Conv2d weight of a loaded model by canonical name, float32 on the CPU, one copy at a time."""

    def __init__(self, model: BaseModel):
        self._modules = {
            model.layer_name(component, path): module
            for component, root in model.adaptable().items()
            for path, module in root.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        }

    def __getitem__(self, name: str) -> Tensor:
        return self._modules[name].weight.detach().float().cpu()

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


class LoadedBase:
    """A model in memory as formats see it."""

    def __init__(self, model: BaseModel):
        self.name = model.name
        self.family = model.family.name
        self.weights: Mapping[str, Tensor] = ModelWeights(model)


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
