"""The benchmark of plain LoRAs: what it converts, tells and draws. Pictures are judged by a stand-in."""

import json
from pathlib import Path
from types import SimpleNamespace

import bench_lowrank as bench
import pytest
from moved import moved_state
from PIL import Image

from dora_diffusion.config import EvaluateConfig
from dora_diffusion.evaluation.bootstrap import Interval
from dora_diffusion.formats import load_adapter
from dora_diffusion.formats.diffusers_format import DIFFUSERS


def row(rank: int | None, likeness: float) -> bench.Row:
    return bench.Row(rank, 0.2, 0.3, likeness, likeness - 0.1, likeness + 0.1, 1.0, 2.0)


def test_the_smallest_rank_that_is_close_is_told() -> None:
    rows = [row(None, 0.8), row(4, 0.5), row(8, 0.7901), row(16, 0.81)]
    assert bench.smallest_close_rank(rows) == 8
    assert bench.smallest_close_rank([row(None, 0.8), row(4, 0.78)]) is None
    assert "Rank 8 is the smallest that has a likeness within 0.01 of the DoRA's." in bench.markdown(rows)
    assert "| LoRA, rank 4 | 20.0% | 30.0% | 0.500 (0.400 to 0.600) | 1.0 | 2.0 |" in bench.markdown(rows)


def test_converts_judges_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "adapter.safetensors"
    DIFFUSERS.write(moved_state("dora"), run)
    asked: list[EvaluateConfig] = []

    def judge(config: EvaluateConfig) -> SimpleNamespace:
        asked.append(config)
        ranks = {layer.rank for layer in load_adapter(str(config.adapter)).layers.values()}
        value = 0.9 if load_adapter(str(config.adapter)).kind == "dora" else 0.9 - 1 / max(ranks)
        return SimpleNamespace(refusal=None, figures={"likeness": Interval(value, value - 0.1, value + 0.1)})

    monkeypatch.setattr(bench, "evaluate", judge)
    out = tmp_path / "out"
    flags = ["--adapter", str(run), "--output_dir", str(out), "--ranks", "32", "4", "--num_images", "1", "--cpu"]
    assert bench.main(flags) == 0
    rows = json.loads((out / "lowrank.json").read_text())
    assert [r["rank"] for r in rows] == [None, 4, 32] and rows[1]["residual"] > rows[2]["residual"] > 0
    assert [r["likeness"] for r in rows] == pytest.approx([0.9, 0.65, 0.9 - 1 / 32])
    assert all(config.num_images == 1 and config.cpu and config.num_drift_images == 0 for config in asked)
    assert load_adapter(out / "lora-4.safetensors").kind == "lora"
    assert Image.open(out / "lowrank.png").width == 720
    assert (out / "lowrank.md").read_text().startswith("| adapter |")


def test_a_plain_lora_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DIFFUSERS.write(moved_state("lora"), tmp_path / "x.safetensors")
    assert bench.main(["--adapter", str(tmp_path / "x.safetensors"), "--output_dir", str(tmp_path / "out")]) == 2
    assert "is a lora, which is a plain LoRA already" in capsys.readouterr().err
