"""``combine``: several adapters of one base as a single file."""

from dora_diffusion.adapters.changes import OnLayer, needs_base
from dora_diffusion.adapters.combined import bases_differ, combine, learnt_words
from dora_diffusion.config.tools import CombineConfig
from dora_diffusion.errors import ConfigError
from dora_diffusion.formats.approximation import rule_of
from dora_diffusion.formats.tools.made import Made, base_of, check_format, needed_weights, read, write

NOT_ADDITIVE = (
    "DoRAs are not additive: this file holds the sum of what each does to the base alone, which is not what readers "
    "make of the files loaded one over the other, where the later sees weights that the earlier has changed."
)
OTHER_BASES = (
    "warning: the adapters were trained on different bases; the sum is exact on neither. Expect wrong colours and "
    "contrast where a DoRA is among them."
)
SEVERAL_WORDS = (
    "The adapters learnt several words of their own ({words}), and a file has place for one: none is in this file. "
    "Export each adapter to a format without a place for words to have its embedding beside."
)


def combine_files(config: CombineConfig, on_layer: OnLayer | None = None) -> Made:
    """Add adapters up by weight.

    Raises:
        ConfigError: fewer than two adapters, a base that is not known, or the output is not what the format writes.
        FormatError, ModelError, AdapterError, MachineError: files, base or disk are not fit.
    """
    check_format(config.format, config.output, config.adapters)
    if len(config.adapters) < 2:
        raise ConfigError(f"Which adapters? Give at least two after --adapters, got {len(config.adapters)}.")
    states = [read(path, config.pretrained_model_name_or_path) for path in config.adapters]
    rule = None if config.full else rule_of(config)
    base = base_of(states, config.pretrained_model_name_or_path)
    weights = config.weights or [1.0] * len(states)
    combined, fits = combine(states, weights, needed_weights(states, base), rule, on_layer)
    proved = write(combined, config.format, config.output, base)
    notes = [NOT_ADDITIVE] if any(needs_base(state) for state in states) else []
    notes += [OTHER_BASES] if any(bases_differ(states[0].fingerprint, s.fingerprint) for s in states[1:]) else []
    words = learnt_words(states)
    notes += [SEVERAL_WORDS.format(words=", ".join(words))] if len(words) > 1 else []
    return Made(config.output, fits if rule else None, rule, tuple(notes), proved)
