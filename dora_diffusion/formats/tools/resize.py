"""``resize``: an adapter of the same kind at another rank."""

from dora_diffusion.adapters.changes import OnLayer
from dora_diffusion.adapters.lowrank import RankRule
from dora_diffusion.adapters.resized import resize
from dora_diffusion.config.tools import ResizeConfig
from dora_diffusion.errors import ConfigError
from dora_diffusion.formats.adapters_on_disk import load_adapter
from dora_diffusion.formats.tools.made import Made, base_weights, check_output, required, write


def resize_file(config: ResizeConfig, on_layer: OnLayer | None = None) -> Made:
    """Give an adapter another rank. With energy or error alone, no layer grows.

    Raises:
        ConfigError: no adapter or no rank was given, its base is not known, or the output is no .safetensors file.
        FormatError, ModelError, AdapterError, MachineError: file, base or disk are not fit.
    """
    check_output(config.output)
    if not config.any_given():
        raise ConfigError("Which rank? Give --rank, or --energy or --error for a rank by layer.")
    state = load_adapter(required(config.adapter))
    largest = max(layer.rank for layer in state.layers.values())
    rule = RankRule(config.rank or largest, config.energy, config.error)
    bases = base_weights([state], config.pretrained_model_name_or_path)
    resized, fits = resize(state, bases, rule, on_layer)
    write(resized, config.format, config.output)
    return Made(config.output, fits, rule)
