"""The recipe in its smoke mode: every stage, from seeds to a folder that draws."""

import importlib.util
import io
import json
import math
import random
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from dora_diffusion.errors import ConfigError, MachineError, TrainingError
from dora_diffusion.toybox import architecture
from dora_diffusion.toybox.captions import caption
from dora_diffusion.toybox.draws import Split
from dora_diffusion.toybox.recipe import STAGES
from dora_diffusion.toybox.recipe.autoencoder_stage import psnr, reconstruction_losses
from dora_diffusion.toybox.recipe.caption_ids import CaptionIds, shard_ids, shard_rows, stream_ids
from dora_diffusion.toybox.recipe.loop import Clock, Ema, Records, learning_rate, read_state
from dora_diffusion.toybox.recipe.pack import write_parts
from dora_diffusion.toybox.recipe.pool import Pool, Shard, Shards
from dora_diffusion.toybox.recipe.run import run_stage, stage_settings
from dora_diffusion.toybox.recipe.settings import LoopSettings, PoolSettings

TRAINED = ("autoencoder", "diffusion")


def smoke(stage: str, work_dir: Path, *changes: str, **options: Any) -> Path:
    return run_stage(stage, stage_settings(stage, changes, smoke=True), work_dir, device="cpu", **options)


def weights_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def values_of(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{path.parent.name}.{name}": value for path in files for name, value in load_file(path).items()}


def assert_same_values(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys() and ours
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder in which the stages up to the packed model were run."""
    folder = tmp_path_factory.mktemp("recipe")
    for stage in (*TRAINED, "pack"):
        smoke(stage, folder)
    return folder


@pytest.fixture
def copied(work: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the trained stages that a test may change."""
    for stage in TRAINED:
        shutil.copytree(work / stage, tmp_path / stage)
    yield tmp_path


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "train_toybox.py"
    spec = importlib.util.spec_from_file_location("train_toybox", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    architecture.tokenizer(folder)
    return folder


# The stages, whole


def test_every_stage_writes_what_it_says(work: Path) -> None:
    for stage, sheet in zip(TRAINED, ("reconstructions.png", "samples.png"), strict=True):
        lines = [json.loads(line) for line in (work / stage / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [2, 4, 4]
        assert {"loss", "lr", "images_per_second"} <= lines[0].keys()
        assert Image.open(work / stage / sheet).size[0] > 64
        state = read_state(work / stage)
        assert (state["steps"], state["images"], len(state["runs"])) == (4, 8, 1)
        assert state["shards"] == 2 + 2  # two to fill the pool, two renewals
    assert read_state(work / "autoencoder")["figures"]["psnr_mean"] > 5
    assert math.isfinite(read_state(work / "diffusion")["figures"]["test_loss"])


def test_the_packed_folder_draws_and_tells_no_path(work: Path) -> None:
    from diffusers import StableDiffusionPipeline

    model = work / "model"
    pipe = StableDiffusionPipeline.from_pretrained(model)
    images = pipe("a photo of a mug", num_inference_steps=1, height=32, width=32).images
    assert images[0].size == (32, 32)
    for path in model.rglob("*"):
        assert path.is_dir() or str(work).encode() not in path.read_bytes(), path.name
    assert pipe.vae.config.scaling_factor == read_state(work / "autoencoder")["figures"]["scaling_factor"]


def test_the_card_holds_data_recipe_seeds_figures_and_limits(work: Path, tmp_path: Path) -> None:
    (tmp_path / "figures.json").write_text(json.dumps({"classes by the eye": "98.7 %"}))
    smoke("pack", tmp_path, f"figures={tmp_path / 'figures.json'}", from_dir=work)
    card = (tmp_path / "model" / "README.md").read_text()
    for words_of_it in ("license: apache-2.0", "| autoencoder | 1 | 1 | 4 |", "psnr mean", "98.7 %", "## Limits"):
        assert words_of_it in card
    assert "there is no eye" not in card and "folder `eye`" not in card


def test_a_packed_model_is_a_work_folder_again(work: Path, tmp_path: Path) -> None:
    """Training goes on from it as from the work folder it was packed from: the same steps behind it, new seeds."""
    smoke("diffusion", tmp_path, from_dir=work / "model")
    assert_same_values(values_of(tmp_path / "autoencoder" / "vae"), values_of(work / "autoencoder" / "vae"))
    before, after = read_state(work / "diffusion"), read_state(tmp_path / "diffusion")
    assert (after["steps"], len(after["runs"])) == (2 * before["steps"], 2) and after["shards"] > before["shards"]
    again = smoke("pack", tmp_path)
    assert "| diffusion | 1 | 2 | 8 |" in (again / "README.md").read_text()


def test_a_packed_model_without_its_states_starts_counting_anew(work: Path, tmp_path: Path) -> None:
    model = shutil.copytree(work / "model", tmp_path / "model")
    (model / "recipe.json").unlink()
    smoke("diffusion", tmp_path / "work", from_dir=model)
    assert read_state(tmp_path / "work" / "diffusion")["steps"] == 4
    (model / "recipe.json").write_text("{")
    with pytest.raises(TrainingError, match=r"recipe\.json is damaged"):
        smoke("diffusion", tmp_path / "other", from_dir=model)


def test_an_eye_is_packed_with_what_it_was_found_to_see(copied: Path) -> None:
    eye = copied / "eye"
    eye.mkdir()
    for name in ("eye.json", "eye.safetensors", "eye_acceptance.md", "details.safetensors"):
        (eye / name).write_text(name)
    model = smoke("pack", copied)
    assert {path.name for path in (model / "eye").iterdir()} == {"eye.json", "eye.safetensors", "README.md"}
    assert "folder `eye`" in (model / "README.md").read_text()


def test_a_folder_too_large_to_ship_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_diffusion.toybox.recipe.pack.MOST_FILE_BYTES", 100_000)
    with pytest.raises(TrainingError, match="no file may have more than 100000"):
        smoke("pack", copied)


@pytest.mark.parametrize("stage", TRAINED)
def test_the_same_seed_gives_the_same_bytes(work: Path, tmp_path: Path, stage: str) -> None:
    if stage == "diffusion":
        shutil.copytree(work / "autoencoder", tmp_path / "autoencoder")
    assert weights_of(smoke(stage, tmp_path)) == weights_of(work / stage)


def test_another_seed_gives_other_weights(work: Path, tmp_path: Path) -> None:
    assert weights_of(smoke("autoencoder", tmp_path, "seed=2")) != weights_of(work / "autoencoder")


# Going on


@pytest.mark.parametrize("stage", TRAINED)
def test_a_stage_goes_on_from_its_last_output(work: Path, tmp_path: Path, stage: str) -> None:
    told: list[str] = []
    still = ("loop.learning_rate=1e-12", "loop.weight_decay=0")
    folder = smoke(stage, tmp_path, *still, from_dir=work, log=told.append)
    before, after = read_state(work / stage), read_state(folder)
    assert (after["steps"], after["shards"], len(after["runs"])) == (8, 8, 2)
    assert before["steps"] == 4
    start = "vae" if stage == "autoencoder" else "raw"
    assert_same_values(values_of(folder / start), values_of(work / stage / start))
    assert any("step 6" in line for line in told)


def test_it_goes_on_from_averages_alone(copied: Path) -> None:
    shutil.rmtree(copied / "diffusion" / "raw")
    before = values_of(copied / "diffusion" / "ema")
    smoke("diffusion", copied, "loop.learning_rate=1e-12", "loop.weight_decay=0")
    assert_same_values(values_of(copied / "diffusion" / "ema"), before)


def test_the_minutes_given_end_a_stage_and_it_is_saved(tmp_path: Path) -> None:
    told: list[str] = []
    folder = smoke("autoencoder", tmp_path, "loop.steps=1000000", minutes=0.05, log=told.append)
    assert 0 < read_state(folder)["steps"] < 1_000_000
    assert (folder / "vae" / "config.json").is_file()
    assert any("whichever" in line for line in told)


def test_too_few_minutes_are_refused() -> None:
    with pytest.raises(ConfigError, match="minutes must be more than finish_minutes"):
        Clock(LoopSettings(finish_minutes=1), 0.5)


@pytest.mark.parametrize(("stage", "missing"), [("diffusion", "autoencoder"), ("pack", "autoencoder")])
def test_a_stage_whose_predecessor_is_missing_says_so(tmp_path: Path, stage: str, missing: str) -> None:
    with pytest.raises(TrainingError, match=f"starts from the stage {missing}.*Run --stage {missing} first"):
        smoke(stage, tmp_path)


def test_a_critic_may_speak(tmp_path: Path) -> None:
    assert smoke("autoencoder", tmp_path, "critic_weight=0.1", "critic_start=0").is_dir()


# Settings and the script


def test_every_stage_has_settings_and_a_smoke_mode() -> None:
    for stage in STAGES:
        assert type(stage_settings(stage)) is type(stage_settings(stage, smoke=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("loop.stepz=5", "loop.stepz"),
        ("loop.steps=0", "greater than or equal to 1"),
        ("loop.steps=many", "steps must be"),
        ("steps", "written name=value"),
        ("seed.of=1", "single setting"),
        ("pool.pool_images=9", "multiple of shard"),
        ("channels=[20, 20]", "channels must be"),
        ("pool.captions=0", "captions"),
        ("seed=[", "cannot be read"),
    ],
)
def test_a_bad_setting_is_refused_in_plain_words(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage_settings("diffusion", [change], smoke=True)


def test_an_unknown_device_is_refused(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(MachineError, match="no CUDA device"):
        run_stage("autoencoder", stage_settings("autoencoder", smoke=True), tmp_path, device="cuda")


def test_the_script_runs_a_stage(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--stage", "autoencoder", "--work_dir", str(tmp_path), "--smoke", "--device", "cpu"]
    assert script.main([*flags, "--set", "loop.steps=1", "seed=3"]) == 0
    assert "1 steps" in capsys.readouterr().out
    assert read_state(tmp_path / "autoencoder")["runs"][0]["settings"]["seed"] == 3


def test_the_script_tells_mistakes_without_a_traceback(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--stage", "diffusion", "--work_dir", str(tmp_path), "--smoke"]) == 2
    assert capsys.readouterr().err.startswith("train_toybox diffusion: The stage diffusion starts from")


# The loop's parts


def test_the_learning_rate_rises_stays_and_falls() -> None:
    settings = LoopSettings(learning_rate=1.0, warmup=10, decay=0.5, final_rate=0.1)
    rates = [learning_rate(settings, step, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:50] == pytest.approx([1.0] * 41)
    assert rates[75] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert learning_rate(settings.model_copy(update={"decay": 0.0}), 100, 1.0) == 1.0


def test_averages_follow_and_are_lent_out() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    ema = Ema([parameter], decay=0.5)
    with torch.no_grad():
        parameter.fill_(1.0)
    for _ in range(3):
        ema.update()
    with ema.averaged():
        assert torch.allclose(parameter, torch.ones(3), atol=1e-3)
        assert not torch.equal(parameter, torch.ones(3))
    assert torch.equal(parameter, torch.ones(3))


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    records = Records(tmp_path, LoopSettings(), "cpu", lambda line: None)
    with pytest.raises(TrainingError, match="loss is nan at step 7"):
        records.metrics(7, {"loss": float("nan")})


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(TrainingError, match="is damaged"):
        read_state(tmp_path)


class CountingShards:
    """Shard k holds two pictures of k."""

    def __init__(self) -> None:
        self.number = 0
        self.settings = PoolSettings(pool_images=6, shard=2, refresh_every=3)

    def __next__(self) -> Shard:
        value = self.number
        self.number += 1
        return Shard(torch.full((2, 3, 16, 16), value, dtype=torch.uint8), torch.full((2, 1, 32), value))


def test_a_pool_fills_and_then_overwrites_the_oldest() -> None:
    pool = Pool(CountingShards(), 6, keep=lambda pictures: pictures.float().mean((1, 2, 3)))  # type: ignore[arg-type]
    assert pool.fill(lambda: True) == 6
    for step in range(1, 7):
        pool.renew_when_due(step)
    assert pool.first(6).tolist() == [3, 3, 4, 4, 2, 2]
    rows, ids = pool.draw_captioned(50, torch.Generator().manual_seed(0))
    assert torch.equal(rows.long(), ids[:, 0]) and set(rows.tolist()) == {2, 3, 4}


def test_a_pool_that_may_not_go_on_holds_what_it_has() -> None:
    pool = Pool(CountingShards(), 6, keep=lambda pictures: pictures)  # type: ignore[arg-type]
    assert pool.fill(lambda: False) == 2
    assert pool.draw(9, torch.Generator().manual_seed(0)).max() == 0


def test_a_shard_is_a_function_of_seed_and_number(words: Path) -> None:
    settings = PoolSettings(pool_images=2, shard=2, size=32, supersample=1, captions=2, workers=0)
    second = [next(Shards(settings, 5, "cpu", words, first=1)) for _ in range(2)]
    shards = Shards(settings, 5, "cpu", words)
    first = next(shards)
    for shard in (next(shards), second[1]):
        assert torch.equal(shard.pictures, second[0].pictures) and torch.equal(shard.token_ids, second[0].token_ids)
    assert not torch.equal(first.pictures, second[0].pictures)


# Captions


def test_caption_ids_are_those_of_the_tokenizer(words: Path) -> None:
    from transformers import CLIPTokenizer

    tokenizer, ids = CLIPTokenizer.from_pretrained(words), CaptionIds(words)
    instances, views = shard_rows(0, 0, 64, Split.TRAIN)
    rng = random.Random(0)
    texts = [*(caption(instances, views, i, rng) for i in range(64)), "", "qqq gargoyle, " * 20]
    for text in texts:
        given = tokenizer(text, padding="max_length", truncation=True, max_length=32).input_ids
        assert ids(text) == given, text


def test_worker_processes_write_the_same_captions(words: Path) -> None:
    job = (3, 1, 4, Split.TRAIN, 2, words)
    stream = stream_ids(*job, workers=1)
    made = [next(stream) for _ in range(2)]
    stream.close()
    for number, ids in enumerate(made, start=1):
        assert (ids == shard_ids(3, number, 4, Split.TRAIN, 2, words)).all()


# Measures and parts


class Blurry:
    """An autoencoder that gives back what it gets, too bright by a fixed amount (in -1 to 1)."""

    def __init__(self, error: float):
        self.error = error

    def encode(self, pixels: Tensor) -> Any:
        return _Has(latent_dist=_Has(mode=lambda: pixels))

    def decode(self, latents: Tensor) -> Any:
        return _Has(sample=latents + self.error)


class _Has:
    def __init__(self, **values: Any):
        vars(self).update(values)


def test_psnr_is_what_its_formula_says() -> None:
    pictures = torch.full((3, 3, 16, 16), 100, dtype=torch.uint8)
    found = psnr(Blurry(10 / 127.5), pictures)
    assert found["mean"] == pytest.approx(20 * math.log10(255 / 10), abs=0.01)
    assert found["pooled"] == pytest.approx(found["mean"], abs=0.01)
    assert psnr(Blurry(0), pictures)["mean"] == 100


def test_reconstruction_losses_tell_a_shift_from_a_blur() -> None:
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    shifted = reconstruction_losses(pixels + 0.1, pixels)
    assert shifted["l1"].item() == pytest.approx(0.1, abs=1e-5)
    assert shifted["mse"].item() == pytest.approx(0.01, abs=1e-5)
    assert shifted["gradient"].item() < 1e-5
    assert reconstruction_losses(torch.full_like(pixels, 0.5), pixels)["gradient"] > 0.1


def test_parts_put_together_are_the_folder(work: Path, tmp_path: Path) -> None:
    names = ["model", "diffusion/state.json"]
    parts, again = (write_parts(work, names, tmp_path / name, 300_000) for name in ("parts", "again"))
    assert len(parts) > 3 and all(path.stat().st_size <= 300_000 for path in parts)
    tape = b"".join(path.read_bytes() for path in parts)
    assert tape == b"".join(path.read_bytes() for path in again)
    with tarfile.open(fileobj=io.BytesIO(tape)) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert weights_of(tmp_path / "out" / "model") == weights_of(work / "model")
    assert (tmp_path / "out" / "diffusion" / "state.json").is_file()
    with pytest.raises(TrainingError, match="There is no nothing"):
        write_parts(work, ["nothing"], tmp_path / "none", 100)
