"""Continuations of hold-out prompts as a folder to listen to and look at: index.html, sounds, pictures, receipts.

Everything lies in the folder and links are relative, so that it opens from the disk, on any machine, without a network.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiolm.audio.files import write_wav
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import EvaluationError
from audiolm.evaluation.continuations import ContinuedPrompt, continue_prompts
from audiolm.evaluation.faults import FAULTS, Fault, measure_faults, occurring
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.listening_page import MADE, Clip, Listening, Picture, Track, page
from audiolm.evaluation.music import correlation, key_profile, loudness, onset_rate
from audiolm.evaluation.report import Report
from audiolm.inspection import figures
from audiolm.inspection.pianoroll import estimate_roll
from audiolm.inspection.seam import measure_seam
from audiolm.inspection.timeline import Timeline
from audiolm.outputs import read_receipt
from audiolm.streams import Waveform

NUM_CLIPS = 20
CLIPS_FOLDER = "clips"
KEPT_FOLDER = "continuations"
MEASURES_FILE = "measures.json"


def seam_percentile(prompt: Tensor, continuation: Tensor) -> float:
    """How the join stands out: the share of the prompt's own instants with no more spectral flux than it, in %."""
    return 100.0 * measure_seam(torch.cat([prompt, continuation]), prompt.shape[0]).flux_percentile


def key_distance(prompt: Tensor, continuation: Tensor) -> float:
    """Change of key: 1 minus the correlation of the pitch-class profiles of prompt and continuation."""
    return 1.0 - correlation(key_profile(prompt), key_profile(continuation))


def onset_ratio(prompt: Tensor, continuation: Tensor) -> float:
    """Onsets a second over the prompt's, half an onset a second added to both."""
    return (onset_rate(continuation) + 0.5) / (onset_rate(prompt) + 0.5)


def loudness_step(prompt: Tensor, continuation: Tensor) -> float:
    """Integrated loudness (BS.1770) of the continuation minus the prompt's, in LU."""
    return loudness(continuation) - loudness(prompt)


_NEVER = {"speech": math.inf, "piano": math.inf}
MEASURES: tuple[Fault, ...] = (
    *FAULTS,
    Fault("seam", "%", seam_percentile, {"speech": 95.0, "piano": 95.0}, digits=0),
    Fault("key", "", key_distance, {"piano": math.inf}, digits=2),
    Fault("pace", "×", onset_ratio, _NEVER),
    Fault("loudness", "LU", loudness_step, _NEVER),
)


def write_report(inputs: Inputs, folder: Path, about: Report, against: Inputs | None = None) -> Listening:
    """Writes `folder`/index.html and what it shows; `about` names checkpoint, data and command.

    `against` continues the same prompts with another checkpoint. Continuations are kept in the work folder of the
    inputs, or in the folder itself.

    Raises EvaluationError without a whole checkpoint or recordings, for stretches too short to be measured, or where
    no prompt could be continued.
    """
    (folder / CLIPS_FOLDER).mkdir(parents=True, exist_ok=True)
    work = inputs.work or folder / KEPT_FOLDER
    samples = continue_prompts(replace(inputs, work=work), NUM_CLIPS)
    if not samples:
        raise EvaluationError("no prompt could be continued")
    others = [] if against is None else continue_prompts(replace(against, work=work), NUM_CLIPS)
    beside = {one.id: one for one in others}
    writer = _Writer(folder, inputs.domain)
    clips = [
        writer.clip(number, one, beside.get(one.id))
        for number, one in enumerate(inputs.progress(samples, "pictures"), 1)
    ]
    listening = Listening(
        about, inputs.request, tuple(clips), MEASURES, "" if against is None else _checkpoint(against)
    )
    (folder / "index.html").write_text(page(listening), encoding="utf-8")
    (folder / MEASURES_FILE).write_text(json.dumps(_values(listening), indent=1) + "\n", encoding="utf-8")
    return listening


def _checkpoint(inputs: Inputs) -> str:
    return f"{inputs.subject.name} ({inputs.subject.sha256})"


@dataclass(frozen=True)
class _Writer:
    """Measures clips of a domain and writes their files into a folder."""

    folder: Path
    domain: str

    def clip(self, number: int, one: ContinuedPrompt, other: ContinuedPrompt | None) -> Clip:
        tracks = [self._generated(number, "generated", one)]
        if other is not None:
            tracks.append(self._generated(number, "other", other))
        for kind, samples in (("codec", one.original), ("recording", one.recording)):
            sound = self._path(number, f"{kind}.wav")
            write_wav(sound, Waveform(samples))
            tracks.append(self._track(number, kind, samples, len(one.prompt), sound))
        return Clip(number, one.id, one.group, tuple(tracks))

    def _generated(self, number: int, kind: str, one: ContinuedPrompt) -> Track:
        """With its receipt in a file beside it."""
        receipt, path = read_receipt(one.path), self._path(number, f"{kind}.receipt.json")
        path.write_text(receipt.to_json(indent=1) + "\n", encoding="utf-8")
        sound = one.path
        if not sound.is_relative_to(self.folder):
            sound = Path(shutil.copyfile(sound, self._path(number, f"{kind}.wav")))
        whole = torch.cat([one.prompt, one.continuation])
        track = self._track(number, kind, whole, len(one.prompt), sound)
        return replace(track, receipt=receipt, receipt_path=self._link(path))

    def _track(self, number: int, kind: str, samples: Tensor, num_prompt: int, sound: Path) -> Track:
        """All there is of samples [T], whose first `num_prompt` are the prompt; a recording has no picture."""
        values = measure_faults(MEASURES, samples[:num_prompt], samples[num_prompt:], self.domain)
        track = Track(
            kind=kind,
            sound=self._link(sound),
            prompt_s=num_prompt / SAMPLE_RATE_HZ,
            duration_s=len(samples) / SAMPLE_RATE_HZ,
            values=values,
            flags=occurring(MEASURES, values, self.domain),
        )
        return track if kind == "recording" else replace(track, picture=self._picture(number, track, samples))

    def _picture(self, number: int, track: Track, samples: Tensor) -> Picture:
        """Sound, mel spectrogram and, for piano, the notes, with the gray line where the prompt ends."""
        roll = estimate_roll(samples) if self.domain == "piano" else None
        timeline = Timeline(Waveform(samples), track.prompt_s, track.kind in MADE, (), roll=roll)
        figure = figures.timeline_figure(timeline)
        path = figures.save(figure, self._path(number, f"{track.kind}.png"))
        place, (width, height) = figure.axes[0].get_position(), figure.get_size_inches()
        return Picture(self._link(path), float(place.x0), float(place.x1), float(width / height))

    def _path(self, number: int, name: str) -> Path:
        return self.folder / CLIPS_FOLDER / f"{number:02d}-{name}"

    def _link(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _values(listening: Listening) -> dict[str, Any]:
    """The figures of the page, for other programs."""
    clips = [
        {
            "id": clip.id,
            "group": clip.group,
            "tracks": [
                {"kind": track.kind, "sound": track.sound, "values": track.values, "flags": track.flags}
                for track in clip.tracks
            ],
        }
        for clip in listening.clips
    ]
    about = listening.about
    return {"checkpoint": about.sha256, "date": about.date, "command": about.command, "clips": clips}
