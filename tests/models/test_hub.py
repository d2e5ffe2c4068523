"""Hub names: found in the hub's cache without a network, revision and variant respected, the family seen from there."""

import time
from pathlib import Path

import pytest
import torch
from small_models import FAMILIES, small_pipeline, weights_of

from dora_diffusion.errors import ModelError
from dora_diffusion.models import load_base

COMMITS = {"main": "a" * 40, "other": "b" * 40}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository owner/model, as the hub's client keeps it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--model"
    (repository / "refs").mkdir(parents=True)
    for name, commit in COMMITS.items():
        (repository / "refs" / name).write_text(commit)
    return repository / "snapshots"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hub_name_is_a_model_of_its_family(family: str, cache: Path) -> None:
    pipe = small_pipeline(family)
    pipe.save_pretrained(cache / COMMITS["main"])
    base = load_base("owner/model")
    assert (base.name, base.family.name) == ("owner/model", family)
    ours = weights_of(base.pipe)
    assert all(torch.equal(ours[name], tensor) for name, tensor in weights_of(pipe).items())


def test_revision_and_variant(cache: Path) -> None:
    small_pipeline("sd2", seed=1).save_pretrained(cache / COMMITS["main"])
    small_pipeline("sd1", seed=2).to(dtype=torch.float16).save_pretrained(cache / COMMITS["other"], variant="fp16")
    assert load_base("owner/model").family.name == "sd2"
    other = load_base("owner/model", revision="other", variant="fp16")
    expected = weights_of(small_pipeline("sd1", seed=2).to(dtype=torch.float16))
    assert other.family.name == "sd1" and other.dtype == torch.float32
    ours = weights_of(other.pipe)
    assert all(torch.equal(ours[name], tensor.float()) for name, tensor in expected.items())


def test_a_repository_without_the_parts_configuration(cache: Path) -> None:
    small_pipeline("sd1").save_pretrained(cache / COMMITS["main"])
    (cache / COMMITS["main"] / "unet" / "config.json").unlink()
    with pytest.raises(ModelError, match="owner/model"):
        load_base("owner/model")


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens where the hub should be, and nobody said so."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")


def test_a_name_is_refused_at_once_where_the_hub_cannot_be_reached(
    cache: Path, unreachable: None, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The hub's client alone takes 23 seconds over it, and warns eleven times."""
    began = time.perf_counter()
    with pytest.raises(ModelError, match="owner/misspelt is no folder here, and the hub cannot be reached"):
        load_base("owner/misspelt")
    assert time.perf_counter() - began < 5
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_a_model_that_was_downloaded_is_found_without_the_hub(cache: Path, unreachable: None) -> None:
    pipe = small_pipeline("sd1")
    pipe.save_pretrained(cache / COMMITS["main"])
    began = time.perf_counter()
    assert load_base("owner/model").family.name == "sd1"
    assert time.perf_counter() - began < 10
