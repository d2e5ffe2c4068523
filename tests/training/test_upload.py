"""The hub: asked before the first step, given the finished run's public files, and never able to lose the run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_hub import FakeHub
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from training_runs import PHOTOS, Heard, run_it, small_config

from dora_diffusion.cli import main
from dora_diffusion.config import RunConfig
from dora_diffusion.errors import ConfigError, MachineError, TrainingError
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.training import preview
from dora_diffusion.training.events import Finished, Note, RunStarted
from dora_diffusion.training.hub import connect

TOKEN = "hf_this_is_secret"
QUICK = preview.Drawing(num_inference_steps=1, height=64, width=64)


def refused(status: int, text: str) -> HfHubHTTPError:
    response = httpx.Response(status, request=httpx.Request("GET", "https://hub.test"))
    return HfHubHTTPError(text, response=response)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: fake)
    monkeypatch.setattr(preview, "PREVIEW", QUICK)
    return fake


def flags(folder: Path, *more: str) -> list[str]:
    photos = ["--instance_data_dir", str(PHOTOS), "--class_noun", "teapot", "--resolution", "64", "--rank", "1"]
    return [*photos, "--cpu", "--max_train_steps", "2", "--output_dir", str(folder), "--push_to_hub", *more]


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., int]:
    return lambda *more: main(["train", *flags(tmp_path / "run", *more)])


def test_the_public_files_of_a_finished_run_are_uploaded(tmp_path: Path, hub: FakeHub) -> None:
    heard = Heard()
    run = {"push_to_hub": True, "validation_prompt": ["a photo of sks teapot"], "num_validation_images": 2}
    run_it(small_config(tmp_path / "teapot", 2, adapter={"rank": 1}, run=run), heard)
    assert hub.said == ["whoami", "create_repo", "upload_folder"] and hub.repository == "me/teapot"
    samples = [f"samples/step-000002-00-{seed}.png" for seed in (0, 1)]
    assert sorted(hub.uploaded) == sorted([WEIGHTS_NAME, "README.md", *samples])
    assert all((tmp_path / "teapot" / name).read_bytes() == content for name, content in hub.uploaded.items())
    assert [type(event) for event in heard][-2:] == [Finished, Note]
    assert heard.of(Note)[-1].message == "Uploaded to me/teapot on the hub."


def test_the_token_is_written_nowhere(
    tmp_path: Path, hub: FakeHub, train: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    status = train("--hub_model_id", "me/dog", "--hub_token", TOKEN, "--report_to", "tensorboard")
    assert status == 0 and hub.repository == "me/dog"
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"config.yaml", "metrics.jsonl", "status.json", "README.md"} <= {path.name for path in files}
    assert any("tfevents" in path.name for path in files)
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
    assert not [name for name, content in hub.uploaded.items() if TOKEN.encode() in content]


def test_a_failed_upload_keeps_the_run_and_says_how_to_go_on(
    tmp_path: Path, hub: FakeHub, train: Callable[..., int], capsys: Any
) -> None:
    hub.fails["upload_folder"] = OSError("the line is cut\nand more")
    assert train() == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert (
        f"The run is finished and lies in {tmp_path / 'run'}, but its upload to me/run failed: the line is cut. "
        in told
    )
    assert f"hf upload me/run '{tmp_path / 'run'}' . --include '{WEIGHTS_NAME}' --include 'README.md'" in told
    before = (tmp_path / "run" / WEIGHTS_NAME).read_bytes()
    hub.fails.clear()
    assert train() == 0  # the same command again uploads, and trains nothing
    assert hub.uploaded[WEIGHTS_NAME] == before == (tmp_path / "run" / WEIGHTS_NAME).read_bytes()


@pytest.mark.parametrize(
    ("where", "error", "told"),
    [
        (
            "whoami",
            LocalTokenNotFoundError("no token"),
            "needs a token that may write, and nobody is logged in. Log in",
        ),
        (
            "whoami",
            refused(401, "Invalid user token."),
            "the hub does not accept the token: Invalid user token. Log in",
        ),
        ("whoami", ConnectionError("no route to host"), "the hub cannot be reached: no route to host."),
        ("create_repo", refused(403, "Forbidden"), "the repository me/run cannot be made or written: Forbidden."),
    ],
)
def test_what_the_hub_refuses_is_said_before_the_first_step(
    tmp_path: Path, hub: FakeHub, where: str, error: Exception, told: str
) -> None:
    hub.fails[where] = error
    heard = Heard()
    with pytest.raises(MachineError) as caught:
        run_it(small_config(tmp_path / "run", run={"push_to_hub": True}), heard)
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert not heard.of(RunStarted) and not (tmp_path / "run").exists()


def test_a_token_that_only_reads_is_refused(hub: FakeHub) -> None:
    hub.role = "read"
    with pytest.raises(MachineError, match="this one only reads"):
        connect(RunConfig(push_to_hub=True))


@pytest.mark.parametrize("name", ["me/a/b", "me/-dog-", "me/a dog"])
def test_a_repository_that_cannot_be(hub: FakeHub, name: str) -> None:
    with pytest.raises(ConfigError, match="--hub_model_id must be owner/name, got "):
        connect(RunConfig(push_to_hub=True, hub_model_id=name))


def test_a_run_that_was_stopped_is_not_uploaded(tmp_path: Path, hub: FakeHub) -> None:
    run_it(small_config(tmp_path / "run", 3, run={"push_to_hub": True}), stop_after=1)
    assert hub.said == ["whoami", "create_repo"] and not hub.uploaded


def test_nobody_is_asked_where_nothing_is_uploaded(tmp_path: Path, hub: FakeHub) -> None:
    run_it(small_config(tmp_path / "run", 1))
    assert hub.said == [] and connect(RunConfig()) is None


def test_the_card_does_not_name_a_folder_as_the_base(tmp_path: Path, hub: FakeHub) -> None:
    """The hub checks ``base_model``, and refuses what is no repository."""
    from dora_diffusion.models.load import resolve

    model = {"pretrained_model_name_or_path": str(resolve("toybox"))}
    run_it(small_config(tmp_path / "run", 1, model=model, run={"push_to_hub": True}))
    assert b"base_model:" not in hub.uploaded["README.md"] and b"library_name: diffusers" in hub.uploaded["README.md"]


def test_an_upload_that_failed_is_an_error_of_training(tmp_path: Path, hub: FakeHub) -> None:
    hub.fails["upload_folder"] = refused(500, "Internal")
    with pytest.raises(TrainingError, match="Start the same command again, or upload it by hand"):
        run_it(small_config(tmp_path / "run", 1, run={"push_to_hub": True}))
    assert (tmp_path / "run" / WEIGHTS_NAME).is_file()
