"""Hands on the tabs behind Teach: what the tests of Create, Compare, Subjects and Export share."""

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TAUGHT = HERE / "serve_taught.py"


def show(page: Any, tab: str) -> None:
    """Open a tab, also where a narrow page keeps it behind the dots."""
    named = page.get_by_role("tab", name=tab, exact=True).filter(visible=True)
    more = page.locator("#tabs .overflow-menu > button").filter(visible=True)
    named.or_(more).first.wait_for()  # a page that was just loaded has neither
    if named.count():
        named.click()
        return
    more.click()
    page.locator("#tabs .overflow-dropdown").get_by_text(tab, exact=True).click()


def wait_for_line(page: Any, tab: str, state: str, timeout_s: float = 30) -> str:
    """Wait until an order is in this state, and return the line's words."""
    line = page.locator(f"#{tab}-state-line[data-state={state}]")
    line.wait_for(timeout=1000 * timeout_s)
    return str(line.inner_text())


def choose(page: Any, dropdown: str, words: str) -> None:
    """Choose the entry of a list that has these words."""
    page.locator(f"#{dropdown} input").click()
    page.get_by_role("option").filter(has_text=words).click()


def text_of(page: Any, elem_id: str) -> str:
    """What stands in a field."""
    return str(page.locator(f"#{elem_id} textarea, #{elem_id} input").first.input_value())


# Whether a field still says what was written into it some frames later.
STAYS = """async (field, words) => {
  for (let frame = 0; frame < 10; frame++) {
    await new Promise(requestAnimationFrame);
    if (!field.isConnected || field.value !== words) return false;
  }
  return true;
}"""


def write(page: Any, elem_id: str, words: str) -> None:
    """Write into a field, as somebody does who sees it: a part that is just being opened puts its fields in anew, with
    what they said before, faster than anybody writes but a test."""
    field = page.locator(f"#{elem_id} textarea, #{elem_id} input").first
    for _ in range(10):
        field.fill(words)
        if field.evaluate(STAYS, words):
            return
    raise AssertionError(f"{elem_id} does not keep {words!r}")


def wait_until(page: Any, elem_id: str, words: str, timeout_s: float = 20) -> None:
    """Wait until a field says this."""
    page.wait_for_function(
        "([id, words]) => document.querySelector(`#${id} textarea, #${id} input`)?.value === words",
        arg=[elem_id, words],
        timeout=1000 * timeout_s,
    )


def fits(page: Any) -> bool:
    """Whether the page needs no scrolling to the side."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
