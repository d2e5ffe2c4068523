"""The step benchmark runs every variant on one problem and writes what docs/benchmarks.md shows. No time is judged."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_step.py"
TINY = ["--model", "tiny", "--device", "cpu", "--rank", "4", "--steps", "2"]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    pytest.importorskip("peft")
    spec = importlib.util.spec_from_file_location("bench_step", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_step"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def report(bench: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("bench") / "step.json"
    assert bench.main([*TINY, "--batch_sizes", "1,2", "--json", str(path)]) == 0
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def tiny(bench: ModuleType, batch_size: int = 2) -> Any:
    return bench.Setting("tiny", batch_size, 4, 1, torch.device("cpu"))


def test_every_variant_ran_at_every_batch_size(bench: ModuleType, report: dict[str, Any]) -> None:
    assert [run["batch_size"] for run in report["runs"]] == [1, 2]
    for run in report["runs"]:
        assert [row["variant"] for row in run["rows"]] == list(bench.VARIANTS)
        for row in run["rows"]:
            assert row["timed_steps"] == 2
            assert 0 < row["fastest_ms"] <= row["ms"] <= row["slowest_ms"]
            assert row["peak_gib"] is None


def test_the_report_says_with_what_and_where_it_was_made(report: dict[str, Any]) -> None:
    assert report["versions"]["torch"] == torch.__version__
    assert {"python", "diffusers", "peft"} <= report["versions"].keys()
    assert report["hardware"]["device"] == "cpu" and report["hardware"]["threads"] >= 1
    assert report["settings"]["model"] == "tiny" and report["settings"]["rank"] == 4
    assert len(report["date"]) == 10


def test_all_variants_start_from_the_same_loss_and_train_the_same_number_of_parameters(report: dict[str, Any]) -> None:
    for run in report["runs"]:
        rows = {row["variant"]: row for row in run["rows"]}
        for row in rows.values():
            assert row["first_loss"] == pytest.approx(rows["floor"]["first_loss"], rel=1e-4)
        assert rows["floor"]["trainable"] == 0
        assert rows["ours_lora"]["trainable"] == rows["peft_lora"]["trainable"] > 0
        assert rows["ours_dora"]["trainable"] == rows["peft_dora"]["trainable"] > rows["ours_lora"]["trainable"]


def test_ratios_are_medians_over_medians(report: dict[str, Any]) -> None:
    for run in report["runs"]:
        ms = {row["variant"]: row["ms"] for row in run["rows"]}
        assert run["ratios"]["ms ours_dora / ours_lora"] == pytest.approx(ms["ours_dora"] / ms["ours_lora"])
        assert run["ratios"]["ms ours_dora / peft_dora"] == pytest.approx(ms["ours_dora"] / ms["peft_dora"])
        assert not any(name.startswith("peak") for name in run["ratios"])


def test_ratios_leave_out_what_did_not_run(bench: ModuleType) -> None:
    rows = [
        {"variant": "peft_lora", "ms": 20.0, "peak_gib": 2.0},
        {"variant": "ours_dora", "ms": 10.0, "peak_gib": 3.0},
    ]
    assert bench.ratios(rows) == {"peak_gib ours_dora / peft_lora": 1.5}


@pytest.mark.parametrize("name", ["peft_lora", "peft_dora", "ours_lora", "ours_dora"])
def test_a_step_trains(bench: ModuleType, name: str) -> None:
    step, _ = bench.VARIANTS[name](bench.make_task(tiny(bench)), tiny(bench))
    first = step().item()
    last = [step().item() for _ in range(30)][-1]
    assert last < first


def test_the_second_half_of_the_batch_is_class_images(bench: ModuleType) -> None:
    expected = {1: [False], 4: [False, False, True, True]}
    for batch_size, is_prior in expected.items():
        assert bench.make_task(tiny(bench, batch_size)).is_prior.tolist() == is_prior


def test_sdxl_conditioning_reaches_the_unet(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 * 4 + 8,
    }
    monkeypatch.setitem(bench.UNETS, "tiny", {**bench.UNETS["tiny"], **added})
    task = bench.make_task(tiny(bench))
    assert task.conditioning["added_cond_kwargs"]["text_embeds"].shape == (2, 8)
    assert torch.isfinite(task.loss())


def test_on_a_gpu_every_variant_runs_alone_twice_and_keeps_its_larger_peak(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([1.0, 2.0, 3.0, 0.5])
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: next(peaks) * 2**30)
    results = bench.one_by_one(["floor", "ours_dora"], tiny(bench))
    assert [(result.variant, result.peak_gib) for result in results] == [("floor", 1.0), ("ours_dora", 3.0)]
    assert all(len(result.ms) == 2 for result in results)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--variants", "floor,fastest"], "unknown variant 'fastest'; known: floor, peft_lora"),
        (["--batch_sizes", "0"], "a whole number from 1 is needed, got '0'"),
        (["--steps", "many"], "a whole number from 1 is needed, got 'many'"),
    ],
)
def test_a_wrong_flag_is_told_in_one_line(
    bench: ModuleType, capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        bench.main([*TINY, *flags])
    assert stop.value.code == 2
    assert told in capsys.readouterr().err


def test_missing_toybox_weights_are_told_without_a_traceback(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DORA_DIFFUSION_TOYBOX", str(tmp_path))
    assert bench.main(["--model", "toybox", "--device", "cpu"]) == 2
    assert "no weights at" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_real_gpu_peaks_are_measured(bench: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    flags = ["--model", "tiny", "--device", "cuda", "--batch_sizes", "2", "--steps", "2", "--json", str(path)]
    assert bench.main(flags) == 0
    (run,) = json.loads(path.read_text(encoding="utf-8"))["runs"]
    assert all(row["peak_gib"] > 0 and row["timed_steps"] == 4 for row in run["rows"])
    assert "peak_gib ours_dora / peft_lora" in run["ratios"]
