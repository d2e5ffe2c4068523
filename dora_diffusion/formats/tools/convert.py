"""``convert``: one file in, one file out, in another format or as a plain LoRA."""

from dora_diffusion.adapters.changes import OnLayer
from dora_diffusion.adapters.plain_lora import plain_lora
from dora_diffusion.config.tools import ConvertConfig
from dora_diffusion.formats.approximation import rule_of
from dora_diffusion.formats.export import is_within
from dora_diffusion.formats.tools.made import Made, base_of, check_format, needed_weights, read, write


def convert_file(config: ConvertConfig, on_layer: OnLayer | None = None) -> Made:
    """Rewrite an adapter.

    Args:
        on_layer: told how many layers are done, of how many.

    Raises:
        ConfigError: no adapter was given, its base is not known, or the output is not what the format writes.
        FormatError, ModelError, AdapterError, MachineError: file, base or disk are not fit.
    """
    check_format(config.format, config.output, [config.adapter])
    state = read(config.adapter, config.pretrained_model_name_or_path)
    base = base_of([state], config.pretrained_model_name_or_path)
    rule = rule_of(config)
    if not config.plain_lora and (config.format != "lora" or is_within(state, rule)):
        return Made(config.output, proved=write(state, config.format, config.output, base, config.precision))
    lora, fits = plain_lora(state, needed_weights([state], base), rule, on_layer)
    return Made(config.output, fits, rule, proved=write(lora, config.format, config.output, base, config.precision))
