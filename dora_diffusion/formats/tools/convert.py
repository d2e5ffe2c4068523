"""``convert``: one file in, one file out, in another format or as a plain LoRA."""

from dora_diffusion.adapters.changes import OnLayer
from dora_diffusion.adapters.plain_lora import plain_lora
from dora_diffusion.config.tools import ConvertConfig
from dora_diffusion.formats.adapters_on_disk import load_adapter
from dora_diffusion.formats.tools.made import Made, base_weights, check_output, required, rule_of, write


def convert_file(config: ConvertConfig, on_layer: OnLayer | None = None) -> Made:
    """Rewrite an adapter.

    Args:
        on_layer: told how many layers are done, of how many.

    Raises:
        ConfigError: no adapter was given, its base is not known, or the output is no .safetensors file.
        FormatError, ModelError, AdapterError, MachineError: file, base or disk are not fit.
    """
    check_output(config.output)
    state = load_adapter(required(config.adapter))
    if not config.plain_lora:
        write(state, config.format, config.output)
        return Made(config.output)
    rule = rule_of(config)
    bases = base_weights([state], config.pretrained_model_name_or_path)
    lora, fits = plain_lora(state, bases, rule, on_layer)
    write(lora, config.format, config.output)
    return Made(config.output, fits, rule)
