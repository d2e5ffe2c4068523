"""The studio's benchmark in small: the real server, trainer and workshop, for a few seconds."""

import subprocess
import sys
from pathlib import Path

import bench_studio
import pytest


def test_a_short_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_studio.main(["--seconds", "3", "--jobs", "3", "--pictures", "10"]) == 0
    report = capsys.readouterr().out
    rows = {cells[1].strip(): cells[2].strip() for cells in (line.split("|") for line in report.splitlines()[2:])}
    assert rows["errors"] == "0"
    for kind, (_, count) in bench_studio.USERS.items():
        assert int(rows[f"{kind}, of 20 users at once"].split(" calls")[0]) >= count
    assert rows["the training meanwhile"].endswith("of 120")
    assert rows["server's memory: start, each minute, end"].endswith("MiB")
    assert "ms" in rows["all tabs' first look with 3 jobs queued and 10 pictures"]


def test_what_fails_is_counted() -> None:
    tally = bench_studio.Tally()
    assert tally.time(lambda: 1 // 0) is None and tally.time(lambda: 5) == 5
    assert tally.errors == ["ZeroDivisionError: integer division or modulo by zero"] and len(tally.seconds) == 1
    assert tally.words.endswith("1 errors") and bench_studio.Tally().words == "0 calls, 0 errors"


def test_the_history_is_made_by_the_service(tmp_path: Path) -> None:
    subject = bench_studio.fill(tmp_path / "home", jobs=2, pictures=9)
    studio = bench_studio.Studio(
        tmp_path / "home", trainer=bench_studio.IDLE, workshop=bench_studio.Painter(tmp_path / "log")
    )
    try:
        assert [job.position for job in studio.jobs.current()] == [0, 1]
        assert studio.pictures.count() == 9 and studio.jobs.current()[-1].subject_id == subject
    finally:
        studio.close()


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="nothing to serve"),
        bench_studio.server(tmp_path / "home", sys.executable, "-c", "raise SystemExit('nothing to serve')"),
    ):
        pass


def test_who_computes_stands_back() -> None:
    code = (
        "import os; from dora_diffusion.studio.process import STAND_BACK, stand_back; before = os.nice(0)\n"
        "stand_back(); print(os.nice(0) == min(before + STAND_BACK, 19))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
    for name in ("trainer", "workshop_process"):
        source = (bench_studio.ROOT / "dora_diffusion" / "studio" / f"{name}.py").read_text()
        assert 'if __name__ == "__main__":\n    stand_back()\n' in source
