"""scripts/bench_base.py: what is asked for, what counts as right, and a small run from end to end."""

import json
from pathlib import Path

import bench_base
import pytest
import torch

from dora_diffusion.toybox.draws import Split, draw_instances
from dora_diffusion.toybox.eye import Seen
from dora_diffusion.toybox.words import CLASSES, COLORS, SCENES, STYLES


def test_prompts_say_what_the_rows_hold() -> None:
    asked = bench_base.asked_for(40, Split.TEST)
    for i, text in enumerate(asked.prompts):
        assert text.startswith(tuple(STYLES.values())[int(asked.views.style[i])][0])
        assert text.endswith(tuple(SCENES.values())[int(asked.views.scene[i])][0])
        assert f" {COLORS[int(asked.toys.colors[i, 0])]} and " in text
        assert f" {CLASSES[int(asked.toys.kind[i])]} " in text


def test_no_prompt_is_of_another_split() -> None:
    asked = bench_base.asked_for(40, Split.FINAL)
    again = draw_instances(40, bench_base.SEED, Split.FINAL)
    assert torch.equal(asked.toys.colors, again.colors) and torch.equal(asked.toys.kind, again.kind)


def test_each_head_is_held_against_its_own_word() -> None:
    asked = bench_base.asked_for(6, Split.TEST)
    truth = (asked.toys.kind, asked.views.scene, asked.views.style, asked.toys.colors[:, 0])
    sizes = (len(CLASSES) + 1, len(SCENES), len(STYLES), len(COLORS))
    logits = [torch.nn.functional.one_hot(rows.long(), size).float() for rows, size in zip(truth, sizes, strict=True)]
    right = bench_base.looked_at(Seen(torch.zeros(6, 2), *logits), asked)
    assert all(rows.all() for rows in right.values())
    for place, name in enumerate(("class", "scene", "style", "color")):
        turned = [rows.roll(1, 1) if k == place else rows for k, rows in enumerate(logits)]
        right = bench_base.looked_at(Seen(torch.zeros(6, 2), *turned), asked)
        assert {key for key, rows in right.items() if not rows.any()} == {name}


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--prompts", "6", "--num_inference_steps", "8", "--cpu", "--output_dir", str(tmp_path / "out")]
    assert bench_base.main(flags) == 0
    assert "| scene |" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report) == set(bench_base.BARS)
    assert report["scene"]["value"] >= 0.5 and report["class"]["value"] >= 0.5  # by chance: 1/16, 1/21
    assert (tmp_path / "out" / "pictures.png").is_file()
