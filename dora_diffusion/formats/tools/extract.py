"""``extract``: an adapter from a base and a model that was tuned from it."""

import re
from dataclasses import replace

import torch

from dora_diffusion.adapters.changes import OnLayer
from dora_diffusion.adapters.extracted import extract
from dora_diffusion.config.tools import ExtractConfig
from dora_diffusion.errors import AdapterError, ConfigError
from dora_diffusion.formats.approximation import rule_of
from dora_diffusion.formats.base_files import BaseFiles, open_base
from dora_diffusion.formats.base_weights import BaseByName
from dora_diffusion.formats.tools.made import Made, check_format, write
from dora_diffusion.models import targets

NO_WORDS = (
    "Two models do not tell which words the tuned one was taught, so the file names none; give --trigger and "
    "--instance_prompt to have them in it."
)


def extract_models(config: ExtractConfig, on_layer: OnLayer | None = None) -> Made:
    """Make an adapter of the difference of two models.

    Raises:
        ConfigError: a model is not named, or the output is not what the format writes.
        ModelError, AdapterError, MachineError: the models or the disk are not fit.
    """
    check_format(config.format, config.output)
    if not config.pretrained_model_name_or_path or not config.tuned_model_name_or_path:
        raise ConfigError("Which models? Give --pretrained_model_name_or_path and --tuned_model_name_or_path.")
    base, tuned = open_base(config.pretrained_model_name_or_path), open_base(config.tuned_model_name_or_path)
    if base.family != tuned.family:
        raise AdapterError(
            f"{base.name} is of the family {base.family} and {tuned.name} of {tuned.family}: give a base and a model "
            "that was tuned from it."
        )
    names = _targeted(base, tuned, config.targets)
    rule = rule_of(config)
    state, fits = extract(config.kind, names, base.weights, tuned.weights, rule, on_layer)
    words = {"trigger": config.trigger, "instance_prompt": config.instance_prompt}
    taught = {key: text for key, text in words.items() if text is not None}
    metadata = {**base.schedule, **tuned.schedule, **state.metadata, **taught, "tuned_model": tuned.name}
    state = replace(state, base_name=base.name, metadata=metadata)
    proved = write(state, config.format, config.output, BaseByName(base.name))
    notes = [*_left_out(base, tuned, set(names)), *([] if taught else [NO_WORDS])]
    return Made(config.output, fits, rule, tuple(notes), proved)


def _targeted(base: BaseFiles, tuned: BaseFiles, target: str) -> list[str]:
    """The layers that both models have and the target names."""
    both = [name for name in base.weights if name in tuned.weights]
    components = dict.fromkeys(name.partition(".")[0] for name in both)
    try:
        patterns = {c: re.compile(targets.preset(c, target) or target) for c in components}
    except re.error as error:
        raise ConfigError(f"{target!r} is not a valid regex: {error}. Use attn, attn-mlp, full, or a regex.") from None
    found = [name for name in both if patterns[name.partition(".")[0]].search(name)]
    if not found:
        raise ConfigError(f"The target {target!r} matches none of the {len(both)} layers, e.g. {both[0]!r}.")
    return found


def _left_out(base: BaseFiles, tuned: BaseFiles, taken: set[str]) -> list[str]:
    """One sentence on what tuning changed besides and the adapter does not carry."""
    carried = {base.places[name].key for name in taken}
    changed = [
        key
        for key in base.checkpoint
        if key not in carried
        and key in tuned.checkpoint
        and not key.startswith("first_stage_model.")
        and not torch.equal(base.checkpoint[key].float(), tuned.checkpoint[key].float())
    ]
    if not changed:
        return []
    layers = {place.key for name, place in base.places.items() if name not in taken}
    outside = sum(key in layers for key in changed)
    return [
        f"Left out, though tuning changed them: {outside} layers that --targets does not name, and "
        f"{len(changed) - outside} tensors that no adapter carries (biases, norms, embeddings), first {changed[0]}."
    ]
