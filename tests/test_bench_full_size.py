"""The bench of whole runs, on models that are small."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from small_models import small_pipeline

PATH = Path(__file__).parents[1] / "scripts" / "bench_full_size.py"


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_small_model_trains_and_diffusers_draws_the_same(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("bench_full_size", PATH)
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_full_size", bench)
    spec.loader.exec_module(bench)
    small_pipeline(family, clip_words=True).save_pretrained(tmp_path / "configs" / family)
    given = ["--models", family, "--configurations", str(tmp_path / "configs"), "--steps", "2"]
    assert bench.main([*given, "--output_dir", str(tmp_path / "out")]) == 0
    (row,) = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert row["model"] == family and row["difference"] < 1e-4 < row["changed"]
    assert f"| {family} |" in capsys.readouterr().out
    assert not (tmp_path / "out" / family / "model").exists()
