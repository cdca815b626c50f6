"""What this is, what it is made of, where its limits are, and how to use it without the page."""

from __future__ import annotations

import gradio as gr

from app.schemas import BOUNDS, MAX_CLIP_S
from app.service import Service
from app.ui import api
from audiolm.audio.files import LIMITS
from audiolm.checkpoints.pictures import with_pictures

WHAT = """
## What this is
An open implementation of [AudioLM](https://arxiv.org/abs/2209.03143): audio is written as **semantic** tokens (what is
said or played, 25 a second) and **acoustic** tokens (how it sounds, 50 frames a second, coarse and fine levels). Three
Transformers, one after the other, continue the tokens of your prompt; the codec turns them back into sound. No text, no
notes are involved anywhere.

Everything that comes out is **generated**: it says so in the page, in the WAV file's own comment and in the receipt,
which holds the seeds and hashes that make the same tokens again. Please do not pass generated speech off as a person's.

Recordings are deleted from the server within the hour. Nothing is stored in your browser, nothing is sent elsewhere.
"""

COMMANDS = """
```sh
python -m audiolm continue PROMPT.wav --checkpoint speech-small --seconds 7 --seed 3 --out OUT/
python -m audiolm reconstruct PROMPT.wav --checkpoint speech-small --levels 4 --out OUT/
python -m audiolm inspect CLIP.wav --checkpoint speech-small --ladder --out OUT/
python -m audiolm detect CLIP.wav --checkpoint speech-small
python -m audiolm replay OUT/PROMPT_1.wav PROMPT.wav
python -m audiolm checkpoints list
```
"""

LICENCES = """
## Licences
The code is under Apache-2.0. Each checkpoint's card names the data that it was trained on and their licences.
The example prompts were made by the project and may be used freely.
"""


def build_about_tab(service: Service) -> None:
    """Called inside the tab."""
    gr.Markdown(WHAT)
    gr.Markdown("## Checkpoints")
    for info in service.offer.infos():
        with gr.Accordion(f"{info.name} · {info.domain} · {info.sha256[:12]}", open=False):
            card = with_pictures(info.card, info.folder)
            gr.Markdown(without_front_matter(card), elem_classes="model-card")
    gr.Markdown(f"## Limits\n{limits_table()}", elem_classes="limits")
    gr.Markdown(f"## Without the page\nOn the command line:\n{COMMANDS}\nOver the API, with `gradio_client`:\n")
    gr.Code(api.EXAMPLE, language="python", label="gradio_client", interactive=False)
    gr.Markdown(LICENCES)


def limits_table() -> str:
    """The limits of recordings and of requests, as Markdown."""
    rows = [
        ("recording", f"{LIMITS.min_duration_s:g} to {LIMITS.max_duration_s:g} s"),
        ("read by Inspect and Detect", f"the first {MAX_CLIP_S:g} s"),
        ("file", f"at most {LIMITS.max_file_bytes // 2**20} MiB"),
        ("channels", f"1 to {LIMITS.max_channels}, mixed to one"),
        ("sample rate", f"{LIMITS.min_rate_hz} to {LIMITS.max_rate_hz} Hz, taken to 16000 Hz"),
    ]
    for name in ("prompt_s", "continuation_s", "num_continuations"):
        bound = BOUNDS[name]
        rows.append((bound.label.lower(), f"{bound.minimum:g} to {bound.maximum:g} {bound.unit}".strip()))
    return "| What | Limit |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def without_front_matter(card: str) -> str:
    """A model card without its YAML head."""
    if not card.startswith("---\n"):
        return card
    _, _, rest = card[4:].partition("\n---")
    return rest.lstrip("-\n") or card
