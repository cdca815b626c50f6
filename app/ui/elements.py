"""Elements of our own (assets) inside `gr.HTML`.

Their scripts and styles go to `launch(head=…)`, so that they are loaded once a page. The templates are fixed text: what
a value holds reaches the page through the element's `show`, never as markup.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.settings import ASSETS

# Gradio runs this whenever it puts the component on the page, which may be before the module is there. The element gets
# a copy, since Gradio goes on changing its own, and only what is new: equal values come again and again during a run.
ON_LOAD = """
const shown = element.firstElementChild;
shown.setAttribute("aria-label", props.label);
shown.addEventListener("choose", (event) => trigger("select", event.detail));
let last;
const show = async () => {
  await customElements.whenDefined(shown.localName);
  const value = JSON.stringify(props.value ?? null);
  if (value === last) return;
  last = value;
  shown.show(JSON.parse(value));
};
show();
watch("value", show);
"""


def head(folder: str, style: str, *scripts: str) -> str:
    """A style and scripts of `assets/<folder>` as markup for the page's head; the scripts are one module."""
    css, *code = ((ASSETS / folder / name).read_text(encoding="utf-8") for name in (style, *scripts))
    joined = "\n".join(code)
    return f'<style>{css}</style>\n<script type="module">{joined}</script>'


def element(name: str, label: str, elem_id: str, **options: Any) -> gr.HTML:
    """The custom element `name`, empty until it is given a value."""
    return gr.HTML(
        value=None,
        html_template=f"<{name}></{name}>",
        js_on_load=ON_LOAD,
        apply_default_css=False,
        label=label,
        elem_id=elem_id,
        **options,
    )
