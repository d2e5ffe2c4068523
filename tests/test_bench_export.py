"""scripts/bench_export.py on a small SDXL: a base that is there is used, an export is measured, a failure is told."""

from pathlib import Path

import bench_export
import pytest
from small_models import small_pipeline

from dora_diffusion.formats import load_adapter


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    small_pipeline("sdxl").save_pretrained(folder / "sdxl")
    assert bench_export.make_adapter(folder / "sdxl", folder / "adapter.safetensors") > 20
    return folder


def test_the_adapter_is_a_dora_of_attention(made: Path) -> None:
    state = load_adapter(made / "adapter.safetensors")
    assert state.kind == "dora" and {name.partition(".")[0] for name in state.layers} == {
        "unet",
        "text_encoder",
        "text_encoder_2",
    }
    assert all(layer.magnitude is not None and layer.rank == bench_export.RANK for layer in state.layers.values())


def test_the_table(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_export.main(["--output_dir", str(made), "--formats", "comfyui", "--threads", "1"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    name, seconds, peak = (cell.strip() for cell in row.strip("|").split("|"))
    assert name == "`comfyui`" and float(seconds) >= 0 and 0.1 < float(peak) < 3
    assert not (made / "comfyui.safetensors").exists()


def test_a_failure_is_told(made: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    _, _, fault = bench_export.measure("comfyui", tmp_path / "broken.safetensors", tmp_path, 1)
    assert "no whole safetensors file" in fault
