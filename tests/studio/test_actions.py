"""What the page's buttons do, without a browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.jobs import Studio
from dora_diffusion.studio.pictures import Pictures

gr = pytest.importorskip("gradio")

from dora_diffusion.studio.ui.actions import Actions  # noqa: E402 - after the check for gradio

from dora_diffusion.studio.ui.plain import plainly  # noqa: E402

MakeActions = Callable[..., tuple[Studio, Actions]]
SKIP = gr.skip()


@pytest.fixture
def make_actions(make_studio: Callable[..., Studio]) -> MakeActions:
    def make(mode: str = "ok", pause_s: float = 0.01) -> tuple[Studio, Actions]:
        studio = make_studio(mode, pause_s)
        return studio, Actions(studio, Pictures(studio.media))

    return make


def given(photos: list[Path]) -> list[tuple[str, None]]:
    """Photos as the page hands them over."""
    return [(str(photo), None) for photo in photos]


def test_an_empty_studio_has_nothing_to_restore(make_actions: MakeActions) -> None:
    _, actions = make_actions()
    assert actions.restore() == (SKIP,) * 4
    panel, train, stop, subjects, make, shown = actions.tick({})
    assert 'data-state="none"' in panel
    assert train.interactive and not stop.interactive and not make.interactive
    assert subjects.value is None
    assert actions.tick(shown) == (SKIP,) * 6  # nothing changed, nothing is sent


def test_train_again_goes_on_with_the_same_subject(make_actions: MakeActions, photos: list[Path]) -> None:
    studio, actions = make_actions("crash")
    actions.train(given(photos), "duck", "", "Quick")
    wait_until(lambda: studio.running() is None)
    _, actions = make_actions("ok", 0.001)
    actions.train(given(photos), "duck", "", "Quick")
    wait_until(lambda: studio.status("duck-1").state == "done")
    assert [subject.id for subject in studio.subjects()] == ["duck-1"]
    with pytest.raises(StudioError, match="trained already"):
        actions.train(given(photos), "duck", "", "Quick")


def test_a_reload_restores_the_form_and_train_still_means_the_same_subject(
    make_actions: MakeActions, photos: list[Path]
) -> None:
    studio, actions = make_actions("crash")
    actions.train(given(photos), "duck", "zwx", "Quick")
    wait_until(lambda: studio.running() is None)
    shown, noun, trigger, quality = actions.restore()
    assert (noun, trigger, quality) == ("duck", "zwx", "Quick")
    actions.train(given([Path(photo) for photo in shown]), noun, trigger, quality)
    assert studio.running() == "duck-1"


def test_while_a_training_runs(make_actions: MakeActions, photos: list[Path]) -> None:
    studio, actions = make_actions(pause_s=0.1)
    actions.train(given(photos), "duck", "", "Quick")
    _, train, stop, _, make, _ = actions.tick({})
    assert not train.interactive and stop.interactive and not make.interactive
    with pytest.raises(StudioError, match="one training runs at a time"):
        actions.train(given(photos[:1]), "cat", "", "Quick")
    assert [subject.id for subject in studio.subjects()] == ["duck-1"]
    with pytest.raises(StudioError, match="uses the machine"):
        actions.draw("duck-1", "a photo", 1.0, 0, 1)
    wait_until(lambda: studio.status("duck-1").state == "training")
    actions.stop()
    wait_until(lambda: studio.status("duck-1").state == "stopped")


def test_nothing_to_stop_and_nothing_to_draw(make_actions: MakeActions) -> None:
    _, actions = make_actions()
    with pytest.raises(StudioError, match="nothing to stop"):
        actions.stop()
    with pytest.raises(StudioError, match="Train a subject first"):
        actions.draw(None, "a photo", 1.0, 0, 1)
    with pytest.raises(StudioError, match="Quality is one of"):
        actions.train(None, "duck", "", "Best")


def test_a_trained_subject_can_be_chosen(make_actions: MakeActions, photos: list[Path]) -> None:
    studio, actions = make_actions(pause_s=0.001)
    actions.train(given(photos), "duck", "", "Quick")
    wait_until(lambda: studio.status("duck-1").state == "done")
    _, _, _, subjects, make, _ = actions.tick({})
    assert subjects.value == "duck-1" and make.interactive
    assert actions.choose("duck-1") == ("a photo of sks duck on the beach", [])
    assert actions.choose(None) == ("", [])


def test_a_users_mistake_is_told_escaped(tmp_path: Path) -> None:
    @plainly(tmp_path / "app.log")
    def handler() -> Any:
        raise StudioError("<b>no</b>")

    with pytest.raises(gr.Error) as caught:
        handler()
    assert caught.value.message == "&lt;b&gt;no&lt;/b&gt;"
    assert not (tmp_path / "app.log").exists()


def test_a_bug_is_told_by_reference_and_kept_in_the_log(tmp_path: Path) -> None:
    @plainly(tmp_path / "app.log")
    def handler() -> Any:
        raise RuntimeError("secret detail")

    with pytest.raises(gr.Error) as caught:
        handler()
    assert "secret" not in caught.value.message and "app.log" in caught.value.message
    log = (tmp_path / "app.log").read_text()
    assert "secret detail" in log and log.split()[1] in caught.value.message
