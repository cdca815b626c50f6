"""Sliders and fields whose limits come from BOUNDS."""

from __future__ import annotations

import secrets

import gradio as gr

from app.schemas import BOUNDS
from app.ui.plain import QUIET

NEW_SEED_BELOW = 2**31


def slider(name: str, prefix: str = "", value: float | None = None) -> gr.Slider:
    """A slider with the limits of BOUNDS[name], at its default where no value is given; its id is `prefix` + name."""
    bound = BOUNDS[name]
    return gr.Slider(
        bound.minimum,
        bound.maximum,
        value=bound.default if value is None else value,
        step=bound.step,
        label=f"{bound.label} ({bound.unit})" if bound.unit else bound.label,
        info=bound.info or None,
        precision=0 if bound.whole else None,
        elem_id=prefix + name.replace("_", "-"),
        buttons=[],
    )


def seed_field(prefix: str = "") -> gr.Number:
    """A field for the seed beside a button that draws another one."""
    bound = BOUNDS["seed"]
    with gr.Row(elem_classes="seed"):
        seed = gr.Number(
            bound.default,
            label=bound.label,
            info=bound.info,
            precision=0,  # no limits here: `Bound` refuses in the page, Gradio only in a toast
            elem_id=f"{prefix}seed",
            scale=3,
        )
        another = gr.Button("New seed", elem_id=f"{prefix}new-seed", elem_classes="new-seed", scale=1, min_width=110)
    another.click(lambda: secrets.randbelow(NEW_SEED_BELOW), None, seed, queue=False, **QUIET)
    return seed
