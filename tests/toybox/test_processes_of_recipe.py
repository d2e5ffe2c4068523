"""Stages of the recipe in two processes: equal weights, other pictures, one writer."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from dora_diffusion.errors import ConfigError, MachineError
from dora_diffusion.toybox import architecture
from dora_diffusion.toybox.recipe import autoencoder_stage, diffusion_stage, eye_stage, loop, processes
from dora_diffusion.toybox.recipe.eye_pool import EyePool
from dora_diffusion.toybox.recipe.loop import Clock, Optimizer, own_seed, read_state
from dora_diffusion.toybox.recipe.pool import Shards
from dora_diffusion.toybox.recipe.processes import ALONE, Place, agreed, average_gradients, here, together
from dora_diffusion.toybox.recipe.run import run_stage, stage_settings
from dora_diffusion.toybox.recipe.settings import LoopSettings, PoolSettings

STAGES = {"autoencoder": autoencoder_stage, "diffusion": diffusion_stage, "eye": eye_stage}


# One process


def test_a_process_without_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with together("cpu") as device:
        assert (device, here(), agreed(0.3)) == ("cpu", ALONE, 0.3)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with together("cuda") as device:  # not looked for: one process keeps the name that it was given
        assert (device, here()) == ("cuda", ALONE)


def test_gradients_of_one_process_stay_what_they_are() -> None:
    parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
    parameters[0].grad = given = torch.tensor([1.0, 2.0])
    average_gradients(parameters)
    assert parameters[0].grad is given and parameters[1].grad is None


def test_inherited_variables_start_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert here() == ALONE  # as in a process that writes captions


@pytest.mark.parametrize("rank", [None, "one", "-1"])
def test_variables_that_are_not_torchruns_are_refused(rank: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with pytest.raises(MachineError, match="RANK must be a whole number.*torchrun"), together("cpu"):
        pass


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(MachineError, match="finds 1 GPUs here, too few for process 2"), together("cuda"):
        pass


# What the processes share, and what they do not: their place made up


def test_gradients_are_averaged_in_one_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Tensor] = []

    def add_the_others(flat: Tensor) -> None:
        sent.append(flat.clone())
        flat += torch.arange(float(len(flat)))

    monkeypatch.setattr(processes, "here", lambda: Place(0, 2))
    monkeypatch.setattr(processes.dist, "all_reduce", add_the_others)
    shapes = [(2, 3, 2, 2), (5,), (1,)]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    given = torch.randn(shapes[0], generator=torch.Generator().manual_seed(0))
    parameters[0].grad = given.to(memory_format=torch.channels_last)
    parameters[1].grad = torch.ones(5)
    average_gradients(iter(parameters))
    assert [len(flat) for flat in sent] == [30]
    assert torch.allclose(parameters[0].grad, (given + torch.arange(24.0).view(shapes[0])) / 2)
    assert torch.allclose(parameters[1].grad, (1 + torch.arange(24.0, 29.0)) / 2)
    assert parameters[2].grad is not None and parameters[2].grad.item() == 29 / 2  # missing here, not there


def test_seeds_differ_and_the_first_ones_is_that_of_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    for rank in range(3):
        monkeypatch.setattr(loop, "here", lambda rank=rank: Place(rank, 3))
        seeds.append(own_seed(5))
    assert seeds[0] == 5 and len(set(seeds)) == 3


def test_all_follow_the_first_ones_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([0.25, 0.5, 1.0])
    monkeypatch.setattr(loop, "here", lambda: Place(1, 2))
    monkeypatch.setattr(loop, "agreed", lambda value: next(told))
    clock = Clock(LoopSettings(steps=40, finish_minutes=0), minutes=1)
    assert [clock.share(step) for step in range(21)] == [0.25] * 10 + [0.5] * 10 + [1.0]


def test_each_process_takes_its_own_shards(tmp_path: Path) -> None:
    architecture.tokenizer(tmp_path)
    settings = PoolSettings(pool_images=2, shard=2, size=32, supersample=1, captions=1, workers=0)
    alone = Shards(settings, 5, "cpu", tmp_path, first=3)
    expected = [next(alone) for _ in range(4)]
    made: dict[int, Any] = {}
    for rank in range(2):
        shards = Shards(settings, 5, "cpu", tmp_path, first=3, place=Place(rank, 2))
        made |= {rank: next(shards), rank + 2: next(shards)}
        assert shards.number == 3 + 4
    for number, shard in enumerate(expected):
        assert torch.equal(made[number].pictures, shard.pictures)
        assert torch.equal(made[number].token_ids, shard.token_ids)


def test_each_process_takes_its_own_parts_of_the_eyes_pool() -> None:
    settings = eye_stage.EyeSettings.smoke().pool
    second, expected = EyePool(settings, 3, "cpu", place=Place(1, 2)), EyePool(settings, 3, "cpu", first=1)
    for pool in (second, expected):
        pool.renew()
    assert torch.equal(second.families.images, expected.families.images)
    assert (second.number, expected.number) == (2, 2)


# Two processes


class Watched(Optimizer):
    """An optimizer that remembers what it was told."""

    kept: list["Watched"] = []

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.kept.append(self)

    def step(self, loss: Tensor, rate: float) -> None:
        self.losses.append(loss.item())
        self.rates.append(rate)
        super().step(loss, rate)


class Ticks:
    """A clock that goes on by ``step`` seconds whenever it is read."""

    def __init__(self, step: float):
        self._step, self._now = step, 0.0

    def monotonic(self) -> float:
        self._now += self._step
        return self._now


def trained(rank: int, folder: Path, ports: list[int]) -> None:
    """What process ``rank`` of two sees, in ``folder / f"{rank}.pt"``."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    seen: dict[str, Any] = {"logged": []}
    loop.time = Ticks(0.1 + 0.4 * rank)  # type: ignore[assignment]  # the second one's clock is five times as fast
    for module in STAGES.values():
        module.Optimizer = Watched  # type: ignore[attr-defined]

    def run(stage: str, *changes: str, minutes: float | None = None) -> None:
        os.environ["MASTER_PORT"] = str(ports.pop())
        settings = stage_settings(stage, changes, smoke=True)
        run_stage(stage, settings, folder, device="cpu", minutes=minutes, log=seen["logged"].append)
        watched = Watched.kept.pop()
        weights = [parameter.detach() for parameter in watched._parameters]
        seen[stage] = {"weights": weights, "losses": watched.losses, "rates": watched.rates}

    run("autoencoder", "loop.steps=1000000", minutes=0.05)
    run("diffusion")
    run("eye")
    os.environ["MASTER_PORT"] = str(ports.pop())
    try:
        run_stage("pack", stage_settings("pack"), folder, device="cpu")
    except ConfigError as error:
        seen["pack"] = str(error)
    torch.save(seen, folder / f"{rank}.pt")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder in which two processes trained the stages."""
    folder = tmp_path_factory.mktemp("pair")
    spawn: Callable[..., Any] = mp.spawn
    spawn(trained, (folder, free_ports(4)), nprocs=2)
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_both_processes_end_with_the_same_weights_and_saw_other_pictures(pair: Path, stage: str) -> None:
    ours, theirs = (torch.load(pair / f"{rank}.pt")[stage] for rank in range(2))
    assert ours["rates"] == theirs["rates"] and len(ours["rates"]) > 1  # the same steps, at the same share of the run
    assert all(torch.equal(one, other) for one, other in zip(ours["weights"], theirs["weights"], strict=True))
    assert not set(ours["losses"]) & set(theirs["losses"])


@pytest.mark.parametrize("stage", STAGES)
def test_the_files_count_the_pictures_of_both_processes(pair: Path, stage: str) -> None:
    state, steps = read_state(pair / stage), len(torch.load(pair / "0.pt")[stage]["rates"])
    run = state["runs"][0]
    assert (state["steps"], run["steps"], run["processes"], len(state["runs"])) == (steps, steps, 2, 1)
    assert state["images"] == 2 * steps * run["batch"]
    if stage == "autoencoder":
        assert 10 <= steps < 100 and steps % 10 == 0  # the minutes given ended it, after a look at the clock
    if stage == "diffusion":
        assert state["shards"] == 2 * (2 + 2)  # two each to fill the pool, two renewals each


def test_only_the_first_process_writes_and_logs(pair: Path) -> None:
    first, second = (torch.load(pair / f"{rank}.pt")["logged"] for rank in range(2))
    assert any("step 4" in line for line in first) and second == []
    lines = [json.loads(line) for line in (pair / "diffusion" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 4]


def test_packing_is_the_work_of_one_process(pair: Path) -> None:
    for rank in range(2):
        assert "one process, got 2" in torch.load(pair / f"{rank}.pt")["pack"]


def test_torchrun_starts_the_script_and_its_caption_writers(pair: Path, tmp_path: Path, repository: Path) -> None:
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = [str(repository / "scripts" / "train_toybox.py"), "--stage", "diffusion", "--device", "cpu", "--smoke"]
    folders = ["--work_dir", str(tmp_path), "--from_dir", str(pair)]
    command = [*started, *script, *folders, "--set", "pool.workers=1", "loop.steps=2"]
    made = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.count("diffusion is in") == 1
    assert read_state(tmp_path / "diffusion")["steps"] == 4 + 2
