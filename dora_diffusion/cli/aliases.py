"""Other spellings of flags, and the flags of diffusers' scripts that have no meaning here, each with the reason.

A setting of the same name always wins: an entry here is then never looked at.
"""

from dora_diffusion.errors import ConfigError

REPLACED: dict[str, list[str]] = {
    "--json": ["--as_json"],
    "--use_dora": ["--kind", "dora"],
    "--use_lora": ["--kind", "lora"],
    "--lora_alpha": ["--alpha"],
    "--enable_xformers_memory_efficient_attention": ["--attention", "xformers"],
}

REFUSED: dict[str, str] = {
    "--dataset_config_name": "only data sets of the hub have configurations, and photos are read from a folder; "
    "use --instance_data_dir",
    "--cache_dir": "downloads lie where the environment variable HF_HOME says; set that",
    "--tokenizer_name": "the tokenizer is the base model's own, which its text encoder was trained with; leave it out",
    "--crops_coords_top_left_h": "the crop that the model is told is the one each picture really has; leave it out",
    "--crops_coords_top_left_w": "the crop that the model is told is the one each picture really has; leave it out",
    "--do_edm_style_training": "models of the EDM formulation (Playground 2.5) are not trained here; leave it out, "
    "with a base that predicts noise or v",
    "--output_kohya_format": "the run's file is diffusers'; use dora-diffusion export for others",
    "--tokenizer_max_length": "this is for DeepFloyd IF, whose T5 is not trained here; CLIP's length is always 77. "
    "Leave it out",
    "--text_encoder_use_attention_mask": "this is for DeepFloyd IF, whose T5 is not trained here; CLIP has no mask. "
    "Leave it out",
    "--validation_images": "this is for DeepFloyd IF's upscaler, which is not trained here; use --validation_prompt",
    "--class_labels_conditioning": "this is for DeepFloyd IF's upscaler, which is not trained here. Leave it out",
}

_TRUTH = {"True": True, "true": True, "1": True, "False": False, "false": False, "0": False}


def canonical(argument: str) -> tuple[str, str, str]:
    """(flag, "=" or nothing, value) of one argument; dashes inside a flag become underscores."""
    flag, equals, value = argument.partition("=")
    return (flag.replace("-", "_").replace("__", "--", 1) if flag.startswith("--") else flag), equals, value


def apply_aliases(arguments: list[str], flags: set[str], switches: frozenset[str] = frozenset()) -> list[str]:
    """Replace foreign spellings (also ``--flag=value`` and dashes) of a command that knows ``flags``.

    Those of them that are ``switches`` may be given True or False, as some are in diffusers' scripts.

    Raises:
        ConfigError: a flag that has no meaning here; the message says why and what to use.
    """
    result: list[str] = []
    for argument in arguments:
        flag, equals, value = canonical(argument)
        switch = result and result[-1].startswith("--") and result[-1] in switches and argument in _TRUTH
        if switch or (equals and flag in switches and value in _TRUTH):
            name, truth = (result.pop(), argument) if switch else (flag, value)
            result.append(name if _TRUTH[truth] else name.replace("--", "--no_", 1))
        elif not argument.startswith("--"):
            result.append(argument)
        elif flag in REFUSED and flag not in flags:
            raise ConfigError(f"{flag}: {REFUSED[flag]}.")
        elif flag in REPLACED and flag not in flags and REPLACED[flag][0] in flags:
            result += [*REPLACED[flag], *([value] if equals else [])]
        else:
            result.append(f"{flag}{equals}{value}")
    return result
