"""``dora-diffusion demo``: the whole job on this machine, without a download; ends with a sheet to look at."""

from pathlib import Path

from PIL import Image

from dora_diffusion.cli.parse import parse
from dora_diffusion.cli.progress import progress_bar
from dora_diffusion.cli.train import run_config
from dora_diffusion.config import DemoConfig, TrainConfig
from dora_diffusion.config.files import load_yaml
from dora_diffusion.errors import ConfigError, DataError
from dora_diffusion.registry import did_you_mean
from dora_diffusion.studio.samples import samples_folder

SCENES = ["on the beach", "in the snow", "on the moon", "in the forest", "in the desert"]
OTHER_CLASS = "duck"


def run(arguments: list[str]) -> int:
    """Train the sample subject and print the path of its sheet."""
    config = parse(DemoConfig, arguments, "demo")
    _refuse_foreign_folder(config.output_dir)
    training = demo_training(config)
    status = run_config(training)
    if status:
        return status
    print(draw_sheet(training, config.output_dir / "sheet.png"))
    return 0


def demo_training(config: DemoConfig) -> TrainConfig:
    """The sample's settings, pointed at its photos and at ``output_dir``.

    Raises:
        DataError: there is no such sample.
    """
    folder = samples_folder()
    path = folder / f"{config.subject}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        hint = did_you_mean(config.subject, known)
        raise DataError(f"There is no sample subject {config.subject!r}; known: {', '.join(known)}.{hint}")
    sample = load_yaml(TrainConfig, path)
    photos = folder / "subjects" / config.subject
    return sample.model_copy(
        update={
            "data": sample.data.model_copy(update={"instance_data_dir": photos}),
            "run": sample.run.model_copy(
                update={
                    "output_dir": config.output_dir / "run",
                    "max_train_steps": config.max_train_steps or sample.run.max_train_steps,
                    "overwrite": config.overwrite,
                    "validation_prompt": [],  # the sheet shows more
                }
            ),
        }
    )


def _refuse_foreign_folder(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "run").is_dir():
        raise ConfigError(f"{folder} is not empty and holds no demo; give another --output_dir.")


def draw_sheet(training: TrainConfig, path: Path) -> Path:
    """Photos / base / personalised / strength 0.5, the same seeds in every row."""
    from dora_diffusion.data.photos import list_photos, open_photo
    from dora_diffusion.inference import MergedPipeline
    from dora_diffusion.inference.sheet import Row, save_sheet, sheet

    data = training.data
    noun, subject = data.class_noun or "", f"{data.trigger} {data.class_noun}"
    prompts = [f"a photo of {subject} {scene}" for scene in SCENES]
    prompts += [
        f"a watercolor painting of {subject} at sunset",
        f"a photo of a {noun} on the grass",
        f"a photo of a {OTHER_CLASS} on the beach",
    ]
    plain = [prompt.replace(subject, f"a {noun}") for prompt in prompts]
    pipeline = MergedPipeline(training.model.pretrained_model_name_or_path, device="cpu" if training.run.cpu else None)
    adapter = training.run.output_dir

    with progress_bar("drawing") as turn:

        def row(label: str, asked: list[str], strength: float, number: int) -> Row:
            pipeline.switch(adapter if strength else None, strength)
            pictures: list[Image.Image] = pipeline.draw(
                prompt=asked, seed=1, on_step=lambda done, total: turn(number * total + done, 3 * total)
            )
            return Row(label, pictures)

        rows = [
            row(f"base (a {noun})", plain, 0.0, 0),
            row("personalised", prompts, 1.0, 1),
            row("strength 0.5", prompts, 0.5, 2),
        ]
    photos = Row(
        "photos", [open_photo(photo) for photo in list_photos(data.instance_data_dir)] if data.instance_data_dir else []
    )
    title = f"{training.adapter.kind}, rank {training.adapter.rank}, {training.run.max_train_steps} steps: {subject}"
    return save_sheet(sheet([photos, *rows], prompts, title=title), path)
