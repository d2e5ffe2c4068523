"""The shell: tabs from the registry, one clock for all, the last view remembered, errors in plain words."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_studio import FakeStudio, a_job

from dora_diffusion.errors import StudioError
from dora_diffusion.registry import TABS

gr = pytest.importorskip("gradio")

from dora_diffusion.studio.ui.html import asked, button, link_to  # noqa: E402 - after the check for gradio
from dora_diffusion.studio.ui.page import STYLES, build, theme  # noqa: E402
from dora_diffusion.studio.ui.shared import FAST_S, SLOW_S, Shared, called, find  # noqa: E402


@pytest.fixture
def studio(tmp_path: Path) -> FakeStudio:
    return FakeStudio(tmp_path / "home")


@pytest.fixture
def shared(studio: FakeStudio) -> Iterator[Shared]:
    with gr.Blocks() as page:
        yield Shared(studio, page, gr.Tabs(), gr.Textbox(), gr.Textbox())  # type: ignore[arg-type]


def handler(page: Any, name: str) -> Any:
    """A bound handler of the page by its function's name."""
    found = [event.fn for event in page.fns.values() if event.fn is not None and event.fn.__name__ == name]
    assert found, name
    return found[0]


@pytest.mark.parametrize("name", list(TABS))
def test_every_tab_keeps_the_contract(name: str, studio: FakeStudio) -> None:
    tab = TABS.load(name)
    assert tab.label.isalpha() and tab.label == tab.label.capitalize() and len(tab.label) < 12
    with gr.Blocks() as page, gr.Tabs() as tabs, gr.Tab(tab.label, id=name):
        tab.build(studio, Shared(studio, page, tabs, gr.Textbox(), gr.Textbox()))  # type: ignore[arg-type]
    assert len(page.blocks) > 3


def test_the_page_has_every_tab_and_ids_are_unique(studio: FakeStudio) -> None:
    page = build(studio)  # type: ignore[arg-type]
    config = page.get_config_file()
    ids = [part["props"].get("elem_id") for part in config["components"]]
    given = [elem_id for elem_id in ids if elem_id]
    assert len(given) == len(set(given)), sorted({one for one in given if given.count(one) > 1})
    assert {f"tab-{name}" for name in TABS} <= set(given)
    quiet = {"api", "state", "browserstate", "timer", "row", "column", "tabs", "group", "form", "markdown"}
    unnamed = [part["type"] for part in config["components"] if not part["props"].get("elem_id")]
    assert set(unnamed) <= quiet, "every control has an elem_id"


def test_the_page_asks_nobody_for_letters() -> None:
    assert theme()._stylesheets == []
    assert STYLES and all("url(" not in style.read_text() and "@import" not in style.read_text() for style in STYLES)


def test_the_last_view_is_remembered_and_checked(studio: FakeStudio) -> None:
    page = build(studio)  # type: ignore[arg-type]
    first, second = (studio.subjects.create_from_sample(name).id for name in ("teapot", "robot"))
    restore = handler(page, "restore")
    assert restore({"tab": "teach", "subject": first})[1] == first
    assert restore({"tab": "no such tab", "subject": "../../etc"}) == (gr.skip(), second)
    assert restore("nonsense") == (gr.skip(), second)
    draft = studio.subjects.draft()
    assert restore({})[1] == draft.id, "what was begun is gone on with"


def test_an_empty_studio_shows_an_empty_form(studio: FakeStudio) -> None:
    assert handler(build(studio), "restore")({}) == (gr.skip(), "")  # type: ignore[arg-type]


# The clock ------------------------------------------------------------------------------------------------------------


def test_a_look_is_taken_when_something_changed_and_sent_when_it_is_new(studio: FakeStudio, shared: Shared) -> None:
    calls: list[str] = []
    words = {"now": "a"}

    def look(given: str) -> tuple[str, Any]:
        calls.append(given)
        return words["now"], gr.skip()

    shared.on_tick(look, [gr.Textbox()], [gr.HTML(), gr.HTML()])
    seen, clock, first, second = shared._tick("", "x")
    assert (first, second) == ("a", gr.skip()) and clock != gr.skip()
    assert shared._tick(seen, "x") == [gr.skip()] * 4 and calls == ["x"]
    studio.jobs.touch()
    seen, clock, first, _ = shared._tick(seen, "x")
    assert calls == ["x", "x"] and first == gr.skip(), "looked at, and nothing new"
    words["now"] = "b"
    assert shared._tick(seen, "y")[2] == "b", "another input is a reason to look"


def test_an_answer_that_is_overtaken_or_lost_is_made_up_for(studio: FakeStudio, shared: Shared) -> None:
    """Two looks are under way at once, and the older answer arrives last."""
    words = {"now": "old"}
    shared.on_tick(lambda: words["now"], outputs=[gr.HTML()])
    page: dict[str, Any] = {"seen": "", "html": None}

    def arrives(answer: list[Any]) -> None:
        page["seen"] = page["seen"] if answer[0] == gr.skip() else answer[0]
        page["html"] = page["html"] if answer[2] == gr.skip() else answer[2]

    arrives(shared._tick(page["seen"]))
    studio.jobs.touch()
    words["now"] = "newer"
    older = shared._tick(page["seen"])
    studio.jobs.touch()
    words["now"] = "newest"
    newer = shared._tick(page["seen"])
    arrives(newer)
    arrives(older)
    assert page["html"] == "newer"
    arrives(shared._tick(page["seen"]))
    assert page["html"] == "newest"
    studio.jobs.touch()
    words["now"] = "lost on the way"
    shared._tick(page["seen"])
    arrives(shared._tick(page["seen"]))
    assert page["html"] == "lost on the way"


@pytest.mark.parametrize(
    "nonsense", [None, 7, "{", "[]", '{"0": 1}', '{"0": {"at": 1}}', '{"0": {"at": 1, "sent": []}}']
)
def test_a_page_that_says_nonsense_is_shown_everything(shared: Shared, nonsense: Any) -> None:
    shared.on_tick(lambda: "a", outputs=[gr.HTML()])
    assert shared._tick(nonsense)[2] == "a"


def test_what_no_revision_counts_is_looked_at_always(shared: Shared) -> None:
    calls: list[int] = []
    shared.on_tick(lambda: calls.append(1) or len(calls), outputs=[gr.HTML()], always=True)
    seen = shared._tick("")[0]
    assert shared._tick(seen)[2] == 2


def test_a_component_as_a_value_is_compared_by_what_it_says(shared: Shared, studio: FakeStudio) -> None:
    shared.on_tick(lambda: gr.Dropdown(choices=["a"]), outputs=[gr.Dropdown()])
    seen = shared._tick("")[0]
    studio.jobs.touch()
    assert shared._tick(seen)[2] == gr.skip()


def test_the_clock_is_fast_while_something_is_active(shared: Shared, studio: FakeStudio) -> None:
    assert shared._tick("")[1].value == SLOW_S
    studio.jobs.put(a_job())
    seen, clock = shared._tick("")
    assert clock.value == FAST_S and shared._tick(seen)[1] == gr.skip()


def test_one_broken_look_takes_nothing_from_the_others(
    shared: Shared, studio: FakeStudio, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> str:
        raise RuntimeError("a fault")

    shared.on_tick(broken, outputs=[gr.HTML()], always=True)
    shared.on_tick(lambda: "fine", outputs=[gr.HTML()])
    with caplog.at_level(logging.ERROR):
        seen, _, first, second = shared._tick("")
        shared._tick(seen)
    assert (first, second) == (gr.skip(), "fine")
    assert sum("cannot be kept up to date" in record.message for record in caplog.records) == 1


def test_subjects_that_are_gone_are_none(studio: FakeStudio) -> None:
    subject = studio.subjects.create_from_sample("teapot")
    assert find(studio, subject.id) == subject  # type: ignore[arg-type]
    studio.subjects.delete(subject.id, subject.name)
    assert find(studio, subject.id) is None and find(studio, "nobody") is None  # type: ignore[arg-type]
    assert called(None) == "your subject" and called(subject) == subject.name


# Words ----------------------------------------------------------------------------------------------------------------


def test_a_mistake_is_told_and_a_fault_is_logged(shared: Shared, caplog: pytest.LogCaptureFixture) -> None:
    def mistaken() -> None:
        raise StudioError("Add <photos>.")

    def broken() -> None:
        raise KeyError("secret detail")

    with pytest.raises(gr.Error) as told:
        shared.plain(mistaken)()
    assert told.value.message == "Add &lt;photos&gt;."
    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error) as told:
        shared.plain(broken)()
    assert "secret detail" not in told.value.message and "app.log" in told.value.message
    reference = told.value.message.partition("(reference ")[2][:4]
    assert any(reference in record.getMessage() and record.exc_info for record in caplog.records)


def test_a_button_says_what_it_wants() -> None:
    html = button("<Go>", "go", "primary", 'say "it"', job="job-1", name="<x>")
    assert html == (
        '<button type="button" class="act primary" data-do="go" data-job="job-1" data-name="&lt;x&gt;" '
        'aria-label="&lt;Go&gt;: say &quot;it&quot;" title="&lt;Go&gt;: say &quot;it&quot;">&lt;Go&gt;</button>'
    )


@pytest.mark.parametrize(("data", "said"), [({"do": "go", "n": 1}, {"do": "go", "n": "1"}), (None, {}), ("x", {})])
def test_what_a_button_said_is_text(data: Any, said: dict[str, str]) -> None:
    assert asked(gr.EventData(None, data)) == said


def test_a_picture_that_is_written_again_has_another_address(tmp_path: Path) -> None:
    file = tmp_path / "a b#.jpg"
    file.write_text("1")
    first = link_to(file)
    assert "#" not in first and " " not in first
    file.unlink()
    assert link_to(file) != first
