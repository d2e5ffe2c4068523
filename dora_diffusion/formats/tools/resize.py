"""``resize``: an adapter of the same kind at another rank."""

from dora_diffusion.adapters import AdapterState
from dora_diffusion.adapters.changes import OnLayer
from dora_diffusion.adapters.lowrank import RankRule
from dora_diffusion.adapters.resized import resize
from dora_diffusion.config.tools import ResizeConfig
from dora_diffusion.errors import ConfigError
from dora_diffusion.formats.tools.made import Made, base_of, check_format, needed_weights, read, write

GROWN = (
    "warning: {count} of {total} layers had fewer ranks and are filled up with ones that do nothing: the file is "
    "larger, and what it draws is the same. Only further training can make use of them."
)


def resize_file(config: ResizeConfig, on_layer: OnLayer | None = None) -> Made:
    """Give an adapter another rank. With energy or error alone, no layer grows.

    Raises:
        ConfigError: no adapter or no rank was given, its base is not known, or the output is not the format's.
        FormatError, ModelError, AdapterError, MachineError: file, base or disk are not fit.
    """
    check_format(config.format, config.output, [config.adapter])
    if not config.any_given():
        raise ConfigError("Which rank? Give --rank, or --energy or --error for a rank by layer.")
    state = read(config.adapter, config.pretrained_model_name_or_path)
    largest = max(layer.rank for layer in state.layers.values())
    rule = RankRule(config.rank or largest, config.energy, config.error)
    base = base_of([state], config.pretrained_model_name_or_path)
    resized, fits = resize(state, needed_weights([state], base), rule, on_layer)
    proved = write(resized, config.format, config.output, base)
    return Made(config.output, fits, rule, tuple(_grown(state, resized)), proved)


def _grown(before: AdapterState, after: AdapterState) -> list[str]:
    """One sentence on layers that have more ranks than before."""
    grown = [name for name, layer in before.layers.items() if after.layers[name].rank > layer.rank]
    return [GROWN.format(count=len(grown), total=len(before.layers))] if grown else []
