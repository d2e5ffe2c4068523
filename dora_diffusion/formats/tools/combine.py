"""``combine``: several adapters of one base as a single file."""

from dora_diffusion.adapters.changes import OnLayer, needs_base
from dora_diffusion.adapters.combined import bases_differ, combine
from dora_diffusion.config.tools import CombineConfig
from dora_diffusion.errors import ConfigError
from dora_diffusion.formats.adapters_on_disk import load_adapter
from dora_diffusion.formats.tools.made import Made, base_weights, check_output, rule_of, write

NOT_ADDITIVE = (
    "DoRAs are not additive: this file holds the sum of what each does to the base alone, which is not what readers "
    "make of the files loaded one over the other, where the later sees weights that the earlier has changed."
)
OTHER_BASES = (
    "warning: the adapters were trained on different bases; the sum is exact on neither. Expect wrong colours and "
    "contrast where a DoRA is among them."
)


def combine_files(config: CombineConfig, on_layer: OnLayer | None = None) -> Made:
    """Add adapters up by weight.

    Raises:
        ConfigError: fewer than two adapters, a base that is not known, or the output is no .safetensors file.
        FormatError, ModelError, AdapterError, MachineError: files, base or disk are not fit.
    """
    check_output(config.output)
    if len(config.adapters) < 2:
        raise ConfigError(f"Which adapters? Give at least two after --adapters, got {len(config.adapters)}.")
    states = [load_adapter(path) for path in config.adapters]
    rule = None if config.full else rule_of(config)
    bases = base_weights(states, config.pretrained_model_name_or_path)
    combined, fits = combine(states, config.weights or [1.0] * len(states), bases, rule, on_layer)
    write(combined, config.format, config.output)
    notes = [NOT_ADDITIVE] if any(needs_base(state) for state in states) else []
    notes += [OTHER_BASES] if any(bases_differ(states[0].fingerprint, s.fingerprint) for s in states[1:]) else []
    return Made(config.output, fits, rule, tuple(notes))
