"""The card in which a tab shows what becomes of an order, and the few lines of script that go with it."""

import json

import gradio as gr

# Where the card stands below the form, as on a phone, it comes into view when an order begins or is refused. The focus
# stays where it was: what happens is spoken by the line itself. ``--strip``: the height of what sticks above the tabs.
_SCRIPT = """
const ours = %s, root = document.documentElement, strip = document.querySelector('#strip');
if (strip) new ResizeObserver(() => root.style.setProperty('--strip', `${strip.offsetHeight}px`)).observe(strip);
let before = '';
new MutationObserver(() => {
  const state = element.querySelector('[data-state]')?.dataset.state ?? '';
  const begins = ['waiting', 'failed'].includes(state) && !['waiting', 'working'].includes(before);
  before = state;
  const card = element.closest('.results'), form = card?.previousElementSibling;
  if (begins && form && form.getBoundingClientRect().bottom <= card.getBoundingClientRect().top)
    card.scrollIntoView({block: 'start'});
}).observe(element, {childList: true, subtree: true, characterData: true, attributes: true});
document.addEventListener('keydown', (event) => {
  const asks = event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !event.defaultPrevented;
  if (!asks || !event.target.closest(ours.prompt)) return;
  event.preventDefault();
  document.querySelector(ours.button).click();
});
"""
# What was taken over into a form is told in the form: it may stand far above what was pressed.
_NOTE_SCRIPT = """
new MutationObserver(() => {
  if (element.querySelector('.notice')) element.scrollIntoView({block: 'center'});
}).observe(element, {childList: true, subtree: true});
"""


def state_panel(idle: str, elem_id: str, prompt: str, button: str) -> gr.HTML:
    """Where the line of an order is told, in a column of the class "results" beside or below its form.

    Args:
        idle: HTML of the line while nothing was ordered.
        prompt, button: ids of the field in which Ctrl+Enter (Cmd+Enter) orders, and of the button that does.
    """
    named = json.dumps({"prompt": f"#{prompt}", "button": f"#{button}"})
    return gr.HTML(idle, elem_id=elem_id, js_on_load=_SCRIPT % named)


def note_panel(elem_id: str) -> gr.HTML:
    """Where a form says what was taken over into it; it comes into view when it does."""
    return gr.HTML(elem_id=elem_id, js_on_load=_NOTE_SCRIPT)
