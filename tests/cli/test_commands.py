"""Every command does its job, from the outside."""

import json
from pathlib import Path

import pytest
from moved import moved_state
from PIL import Image

from dora_diffusion.cli import main
from dora_diffusion.cli.demo import demo_training
from dora_diffusion.config import DemoConfig
from dora_diffusion.errors import DataError
from dora_diffusion.formats import WEIGHTS_NAME, load_adapter
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.inference.sheet import Row, save_sheet, sheet


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    DIFFUSERS.write(moved_state("dora"), folder / WEIGHTS_NAME)
    return folder


def test_train_then_generate(tmp_path, subject_photos, capsys):
    run = tmp_path / "run"
    flags = ["--instance_data_dir", str(subject_photos), "--class_noun", "teapot", "--resolution", "64"]
    assert main(["train", *flags, "--max_train_steps", "2", "--output_dir", str(run)]) == 0
    assert {path.name for path in run.iterdir()} >= {
        WEIGHTS_NAME,
        "config.yaml",
        "metrics.jsonl",
        "README.md",
        "final-2",
    }
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    asked = ["--prompt", "a photo of sks teapot", "--num_inference_steps", "2", "--num_images", "2"]
    assert main(["generate", "--adapter", str(run), *asked, "--output_dir", str(tmp_path / "out")]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.name for path in printed] == ["00000.png", "00001.png"]
    assert Image.open(printed[0]).size == (128, 128)


def test_merge_prints_a_folder_that_diffusers_reads(run_folder, tmp_path, capsys):
    assert (
        main(["merge", "--adapter", str(run_folder), "--output_dir", str(tmp_path / "merged"), "--precision", "fp16"])
        == 0
    )
    folder = Path(capsys.readouterr().out.strip())
    assert (folder / "model_index.json").is_file()
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").is_file()
    # Again into the same folder: ours may be replaced.
    assert main(["merge", "--adapter", str(run_folder), "--output_dir", str(tmp_path / "merged")]) == 0


def test_export_writes_the_same_adapter(run_folder, tmp_path, capsys):
    target = tmp_path / "subject.safetensors"
    assert main(["export", "--adapter", str(run_folder), "--output", str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    before, after = load_adapter(run_folder), load_adapter(target)
    assert before.layers.keys() == after.layers.keys()
    assert all((before.layers[name].B == after.layers[name].B).all() for name in before.layers)


def test_inspect_in_short_by_layers_and_as_json(run_folder, capsys):
    assert main(["inspect", str(run_folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == "dora"
    assert report["base"] == "toybox"
    assert report["components"] == {"unet": 56, "text_encoder": 16}
    assert report["ranks"] == [8]
    assert report["untrained_layers"] == []
    assert len(report["layers"]) == 72
    assert main(["inspect", str(run_folder / WEIGHTS_NAME)]) == 0
    text = capsys.readouterr().out
    assert "one norm per output row" in text and len(text.splitlines()) < 25
    assert "in diffusers: right" in text and "in a1111: reads nothing of it: its names are not known there" in text
    assert main(["inspect", str(run_folder / WEIGHTS_NAME), "--layers"]) == 0
    long = capsys.readouterr().out
    assert long.startswith(text) and len(long.splitlines()) == len(text.splitlines()) + 2 + 72
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q" in long


def test_merge_prints_its_folder_and_no_bars_of_libraries(run_folder, tmp_path, capfd):
    assert main(["merge", "--adapter", str(run_folder), "--output_dir", str(tmp_path / "m")]) == 0
    printed = capfd.readouterr()
    assert printed.out == f"{tmp_path / 'm'}\n" and "model shards" not in printed.err and "it/s" not in printed.err


class TestDemo:
    def test_points_the_sample_at_its_photos_and_folder(self, tmp_path):
        training = demo_training(DemoConfig(output_dir=tmp_path, subject="robot", max_train_steps=7))
        assert training.run.output_dir == tmp_path / "run"
        assert training.run.max_train_steps == 7
        assert training.data.class_noun == "robot"
        assert len(list(training.data.instance_data_dir.glob("*.jpg"))) == 5

    def test_an_unknown_subject_names_the_known_ones(self, tmp_path):
        with pytest.raises(DataError, match="backpack, cat, mug, robot, rocket, teapot"):
            demo_training(DemoConfig(output_dir=tmp_path, subject="unicorn"))

    def test_a_sheet_shows_every_picture_where_it_belongs(self, tmp_path):
        colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
        rows = [
            Row("photos", [Image.new("RGB", (300, 200), colours[0])]),
            Row("base", [Image.new("RGB", (64, 64), colour) for colour in colours]),
        ]
        page = Image.open(
            save_sheet(sheet(rows, ["one", "two", "three"], side=80, title="a title"), tmp_path / "s.png")
        ).convert("RGB")
        found = {pixel for _, pixel in page.getcolors(page.width * page.height)}
        assert found >= set(colours)
        where = [
            [(x, y) for x in range(page.width) for y in range(page.height) if page.getpixel((x, y)) == c]
            for c in colours
        ]
        assert len(where[1]) == 80 * 80
        assert len(where[0]) == 2 * 80 * 80
        assert max(x for x, _ in where[1]) < min(x for x, _ in where[2])

    @pytest.mark.slow
    def test_runs_and_ends_with_the_path_of_its_sheet(self, tmp_path, capsys):
        assert main(["demo", "--output_dir", str(tmp_path), "--max_train_steps", "3"]) == 0
        path = Path(capsys.readouterr().out.strip().splitlines()[-1])
        assert path == tmp_path / "sheet.png"
        assert Image.open(path).width > 1000
