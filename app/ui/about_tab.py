"""What this is, what it is made of, where its limits are, and how to use it without the page."""

from __future__ import annotations

import gradio as gr

from app.schemas import BOUNDS, MAX_CLIP_S
from app.service import Service
from app.ui import api
from app.verdict_presenters import FALSE_MARKS
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

Recordings and results are deleted from the server within the hour, or at once with **Delete my audio** at the end of
the page. One cookie tells which of them are yours, so that nobody else can fetch them. Nothing is sent elsewhere, and
the server's log holds neither audio nor addresses. Only the clips of a listening study stay, until its folder is
deleted.
"""

DETECTION = f"""
## Detector and watermark
**The detector** of a checkpoint tells its continuations from recordings that went through the same codec.
- It knows no other synthesiser, nor this model with other weights: a low score never proves that a sound is real.
- It stays silent on what it was not measured on: too short, too soft, clipped, or unlike its own material.
- Its error rates, beside every score, are of held-out clips; lossy files, noise and rooms make it err more often.
- Its probability takes generated and original sound to be equally common. Where hardly anything is generated, even rare
  false alarms are most of the alarms: nobody should be accused on its word.
- The pink and green over the spectrogram show where the score came from, not what is wrong there.

**The watermark** ([resemble-perth](https://github.com/resemble-ai/perth)) is made not to be heard. What is generated
here carries it, unless the server was started with `--no-watermark`; the prompt at the start of a file does not.
- Other software embeds the same mark, and {FALSE_MARKS}. Found, it speaks for a
  machine having made some of a sound, not for which one.
- Not all sound takes it, piano often not: every continuation says whether its mark is found again.
- Not found, it says nothing: whoever runs the code can leave it out, and processing can take it away. How often it is
  still found after MP3, Opus, noise, cuts and more: `python -m audiolm watermark survive`.
"""

COMMANDS = """
```sh
python -m audiolm continue PROMPT.wav --checkpoint speech-small --seconds 7 --seed 3 --out OUT/
python -m audiolm reconstruct PROMPT.wav --checkpoint speech-small --levels 4 --out OUT/
python -m audiolm inspect CLIP.wav --checkpoint speech-small --ladder --out OUT/
python -m audiolm detect CLIP.wav --checkpoint speech-small
python -m audiolm watermark check CLIP.wav
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
    gr.Markdown(DETECTION)
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
