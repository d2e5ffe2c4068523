"""Other spellings: flags of diffusers' scripts that are called otherwise here, and those that have no meaning here."""

from dora_diffusion.errors import ConfigError

REPLACED: dict[str, list[str]] = {
    "--json": ["--as_json"],
    "--use_dora": ["--kind", "dora"],
    "--use_lora": ["--kind", "lora"],
    "--lora_alpha": ["--alpha"],
    "--enable_xformers_memory_efficient_attention": ["--attention", "xformers"],
    "--use_8bit_adam": ["--optimizer", "adamw8bit"],
}

REFUSED: dict[str, str] = {
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
    return _with_eight_bits_last(result)


def _with_eight_bits_last(arguments: list[str]) -> list[str]:
    """diffusers' ``--use_8bit_adam`` says how ``--optimizer AdamW`` is done, before it or after it.

    Raises:
        ConfigError: it stands beside another optimizer, where diffusers ignores it.
    """
    eight_bits = REPLACED["--use_8bit_adam"]
    flag, name = eight_bits
    given = [value for argument, value in zip(arguments, arguments[1:], strict=False) if argument == flag]
    given += [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{flag}=")]
    if name not in given or len(given) == 1:
        return arguments
    for other in given:
        if other.lower() not in ("adamw", name):
            raise ConfigError(f"--use_8bit_adam is AdamW's, and --optimizer {other} is given. Leave one of them out.")
    return [*arguments, *eight_bits]
