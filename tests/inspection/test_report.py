"""Inspections as folders: every file that was asked for, generated sound with its receipt, numbers that are JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiolm.audio import files
from audiolm.errors import RequestError
from audiolm.inspection.report import Plan, _finite, inspect
from audiolm.outputs import read_receipt
from audiolm.pipeline import replay
from audiolm.stages import finished
from tests.pipeline.material import KEPT_S, recording, request

CLIP = recording(1.5)
TIMELINE = {"audio.wav", "numbers.json", "timeline.png", "timeline.svg", "tokens.csv", "tokens.safetensors"}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_recording_is_inspected_as_it_is(pipeline, tmp_path):
    numbers = finished(inspect(pipeline, CLIP, request(), Plan(), tmp_path / "out"))
    assert names(tmp_path / "out") == TIMELINE
    assert json.loads((tmp_path / "out/numbers.json").read_text()) == json.loads(json.dumps(numbers))
    assert numbers["generated"] is False
    assert numbers["checkpoint_sha256"] == pipeline.models.info.sha256
    assert files.read_waveform(tmp_path / "out/audio.wav").samples.shape == (37 * 640,)


@pytest.fixture(scope="module")
def everything(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspection")
    plan = Plan(continued=True, ladder=True, num_voices=2, ablations=True)
    return folder, finished(inspect(pipeline, CLIP, request(), plan, folder))


def test_a_continuation_is_inspected_with_all_that_is_asked_for(everything):
    folder, numbers = everything
    rungs = ["original", "4_levels", "2_levels", "1_level", "semantic_only_draw_1", "semantic_only_draw_2"]
    drawn = [f"ladder/{rung}.receipt.json" for rung in rungs[4:]]
    runs = ["voices/voice_1", "voices/voice_2"]
    ablations = [f"ablations/{name}" for name in ("full", "no_fine_stage", "no_semantic_stage", "shuffled_semantics")]
    parts = ("wav", "receipt.json", "tokens.safetensors")
    written = {f"{run}.{part}" for run in runs + ablations for part in parts}
    written |= {f"{run}.png" for run in ablations} | {f"ladder/{rung}.wav" for rung in rungs} | {*drawn}
    assert names(folder) == TIMELINE | {"audio.receipt.json", "ladder/ladder.png"} | written
    files_named = [entry["file"] for key in ("ladder", "voices") for entry in numbers[key]]
    files_named += [entry["file"] for entry in numbers["ablations"].values()]
    assert set(files_named) <= names(folder)
    assert (numbers["generated"], numbers["prompt_s"], numbers["seed"]) == (True, KEPT_S, 3)


def test_all_generated_sound_carries_its_receipt(everything, pipeline):
    folder, numbers = everything
    rungs = [entry for entry in numbers["ladder"] if entry["generated"]]
    for entry in (*rungs, *numbers["voices"], *numbers["ablations"].values(), {"file": "audio.wav"}):
        path = folder / entry["file"]
        assert read_receipt(path) == read_receipt(path.with_suffix(".receipt.json"))
    replay(pipeline, read_receipt(folder / "audio.wav"), CLIP)
    assert json.loads(files.read_comment(folder / "ladder/2_levels.wav"))["label"] == "through the codec"


def test_voices_follow_a_voice_that_is_given(pipeline, tmp_path):
    plan = Plan(num_voices=1, voice=recording(1.2, seed=4))
    numbers = finished(inspect(pipeline, CLIP, request(), plan, tmp_path))
    assert numbers["voices"][0]["prompt_s"] == KEPT_S


def test_plans_that_make_no_sense_are_refused():
    with pytest.raises(RequestError, match="ablations are of a continuation"):
        Plan(ablations=True)
    with pytest.raises(RequestError, match="at least 1 output"):
        Plan(voice=CLIP)


def test_numbers_without_a_value_are_null():
    assert _finite({"a": [1.0, float("inf")], "b": (float("nan"),), "c": 2}) == {"a": [1.0, None], "b": [None], "c": 2}
