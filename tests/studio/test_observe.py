"""A job's state is what is, not what was clicked: every case is a row."""

import signal

import pytest

from dora_diffusion.studio.observe import Death, Noted, observe

SAID = {"message": "words"}


def report(state: str, **more: object) -> dict[str, object]:
    return {"state": state, **SAID, **more}


@pytest.mark.parametrize("state", ["draft", "queued", "done", "failed", "cancelled", "interrupted"])
@pytest.mark.parametrize("alive", [True, False])
def test_what_is_not_active_stays_what_was_noted(state: str, alive: bool) -> None:
    assert observe(Noted(state), alive, report("training"), True).state == state


@pytest.mark.parametrize("noted", ["starting", "running", "saving"])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "starting"),
        (report("preparing"), "starting"),
        (report("training"), "running"),
        (report("saving"), "saving"),
        (report("done"), "saving"),
        (report("stopped"), "saving"),
        (report("failed"), "saving"),
        ({"state": ["training"]}, "starting"),
    ],
)
def test_alive(noted: str, said: dict[str, object], expected: str) -> None:
    for asked in (True, False):
        assert observe(Noted(noted, asked), True, said, True).state == expected


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    ("said", "has_adapter", "death", "expected", "code"),
    [
        (report("done"), True, None, "done", None),
        (report("done"), True, Death(-signal.SIGKILL), "done", None),
        (report("done"), False, None, "failed", "broken"),
        (report("failed", code="out_of_memory"), False, Death(1), "failed", "out_of_memory"),
        (report("failed", code="no such code"), False, None, "failed", "broken"),
        (report("failed"), True, None, "failed", "broken"),
    ],
)
def test_gone_with_a_last_word(
    asked: bool, said: dict[str, object], has_adapter: bool, death: Death | None, expected: str, code: str | None
) -> None:
    seen = observe(Noted("running", asked), False, said, has_adapter, death)
    assert (seen.state, seen.code) == (expected, code)


@pytest.mark.parametrize("said", [{}, report("training"), report("saving"), report("stopped"), report("preparing")])
@pytest.mark.parametrize("has_adapter", [True, False])
@pytest.mark.parametrize(
    ("death", "expected", "code"),
    [
        (None, "interrupted", "interrupted"),
        (Death(None, False, "words"), "interrupted", "interrupted"),
        (Death(-signal.SIGKILL, False, "words"), "interrupted", "interrupted"),
        (Death(-signal.SIGTERM, False, "words"), "interrupted", "interrupted"),
        (Death(-signal.SIGKILL, True), "failed", "killed"),
        (Death(None, True), "failed", "killed"),
        (Death(-signal.SIGTERM, True), "interrupted", "interrupted"),
        (Death(-signal.SIGSEGV, False, "words"), "failed", "broken"),
        (Death(2, False, "Error: no base"), "failed", "broken"),
        (Death(1, False, ""), "interrupted", "interrupted"),
        (Death(0, False, "words"), "interrupted", "interrupted"),
    ],
)
def test_gone_without_a_last_word(
    said: dict[str, object], has_adapter: bool, death: Death | None, expected: str, code: str
) -> None:
    seen = observe(Noted("running"), False, said, has_adapter, death)
    assert (seen.state, seen.code) == (expected, code)
    assert seen.message
    assert observe(Noted("running", stop_asked=True), False, said, has_adapter, death).state == "cancelled"


def test_words_of_the_trainer_are_shown() -> None:
    assert observe(Noted("running"), True, report("training"), False).message == "words"
    assert "no base" in observe(Noted("starting"), False, {}, False, Death(2, False, "no base")).message
    assert "SIGSEGV" in observe(Noted("starting"), False, {}, False, Death(-11)).message
