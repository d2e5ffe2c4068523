"""What a run may change where memory does not suffice, by what it was doing; the cheapest first."""

from collections.abc import Iterator

from dora_diffusion.config import TrainConfig
from dora_diffusion.training.preview import PREVIEW


def when_loading(config: TrainConfig) -> Iterator[str]:
    """The base does not fit."""
    yield from lower_precision(config)
    yield "a smaller base"


def when_assembling(config: TrainConfig) -> Iterator[str]:
    """The base fits, and what is put beside it does not."""
    yield from lower_precision(config)
    yield from less_to_train(config)
    yield "a smaller base"


def when_encoding(config: TrainConfig) -> Iterator[str]:
    """A picture does not pass through the autoencoder, which takes them one by one and in float32."""
    yield lower_resolution(config)
    yield from lower_precision(config)


def when_drawing_the_class(config: TrainConfig) -> Iterator[str]:
    """A batch of class images does not fit."""
    if config.prior.sample_batch_size > 1:
        yield f"a --sample_batch_size below {config.prior.sample_batch_size} (the same images)"
    yield lower_resolution(config)
    yield from lower_precision(config)
    yield "--prior_kind prediction, which needs no images"
    yield "images of your own in --class_data_dir"


def when_previewing(config: TrainConfig) -> Iterator[str]:
    """A batch of previews does not fit. Only what may change between two parts of a run."""
    prompts, each = len(config.run.validation_prompt), config.run.num_validation_images
    at_once = min(PREVIEW.sample_batch_size, prompts * each)
    if at_once > 1:
        settings = ["--num_validation_images"] * (each > 1) + ["--validation_prompt"] * (prompts > 1)
        yield f"fewer than {at_once} pictures in all ({' or '.join(settings)}), which are drawn at once"
    yield "no --validation_prompt"


def lower_resolution(config: TrainConfig) -> str:
    given = config.data.resolution
    return "a lower --resolution" if given is None else f"a --resolution below {given}"


def less_to_train(config: TrainConfig) -> Iterator[str]:
    adapter = config.adapter
    if adapter.train_text_encoder:
        yield "no --train_text_encoder"
    if adapter.targets != "attn":
        yield "--targets attn"
    if adapter.rank > 1:
        yield f"a --rank below {adapter.rank}"


def lower_precision(config: TrainConfig) -> Iterator[str]:
    if config.run.mixed_precision in (None, "no"):
        yield "--mixed_precision bf16"
