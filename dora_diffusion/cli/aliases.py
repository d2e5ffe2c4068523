"""Other spellings: flags of diffusers' scripts that are called otherwise here, and those that have no meaning here."""

from dora_diffusion.errors import ConfigError

REPLACED: dict[str, list[str]] = {
    "--json": ["--as_json"],
    "--use_dora": ["--kind", "dora"],
    "--use_lora": ["--kind", "lora"],
    "--lora_alpha": ["--alpha"],
    "--enable_xformers_memory_efficient_attention": ["--attention", "xformers"],
    "--adam_weight_decay_text_encoder": ["--adam_weight_decay"],
}

REFUSED: dict[str, str] = {
    "--use_8bit_adam": "8-bit Adam is not offered; the state of an adapter's optimizer is small. Leave the flag out",
    "--validation_epochs": "steps are counted here, not epochs; use --validation_steps",
    "--num_train_epochs": "steps are counted here, not epochs; use --max_train_steps",
    "--push_to_hub": "nothing is uploaded from here; use huggingface-cli upload with the output folder",
    "--output_kohya_format": "the run's file is diffusers'; use dora-diffusion export for others",
    "--pre_compute_text_embeddings": "this is done by itself unless the text encoder is trained; leave the flag out",
}


def apply_aliases(arguments: list[str], flags: set[str]) -> list[str]:
    """Replace foreign spellings (also ``--flag=value`` and dashes) of a command that knows ``flags``.

    Raises:
        ConfigError: a flag that has no meaning here; the message says why and what to use.
    """
    result: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        name = flag.replace("-", "_").replace("__", "--", 1) if flag.startswith("--") else flag
        if name in REFUSED:
            raise ConfigError(f"{name}: {REFUSED[name]}.")
        if not flag.startswith("--"):
            result.append(argument)
        elif name in REPLACED and REPLACED[name][0] in flags:
            result += [*REPLACED[name], *([value] if equals else [])]
        else:
            result.append(f"{name}{equals}{value}")
    return result
