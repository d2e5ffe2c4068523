"""Two GPUs are one with twice the batch; needs two."""

from pathlib import Path

import bench_processes
import pytest
import torch

pytestmark = pytest.mark.gpu


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_end_where_one_does(tmp_path: Path) -> None:
    """Sums in another order: measured 1e-4 of the gradients; trained on other samples they are 0.5 apart and more."""
    flags = ["--output_dir", str(tmp_path), "--steps", "6", "--train", "--resolution", "64", "--rank", "4"]
    assert bench_processes.main(flags) == 0
    for name in ("1-processes", "2-processes"):
        assert len(bench_processes.metrics(tmp_path / name)) == 6
    row = bench_processes.compare(tmp_path / "2-processes", tmp_path / "1-processes", 2, 6)
    assert row.losses_apart < 1e-4 and row.gradients_apart < 1e-3 and row.adapters_apart < 1e-2
