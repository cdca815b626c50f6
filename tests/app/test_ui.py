from __future__ import annotations

import asyncio
import runpy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gradio as gr
import pytest

from app.results import Loading, Started
from app.schemas import (
    ABLATE_FIELDS,
    BOUNDS,
    CONTINUE_FIELDS,
    LADDER_FIELDS,
    SAMPLING_BOUNDS,
    STUDY_FIELDS,
    VOICES_FIELDS,
)
from app.service import Service
from app.ui import build_ui, launch_options
from app.ui.about_tab import without_front_matter
from app.ui.api import EXAMPLE
from app.ui.continue_tab import _Live
from app.ui.media import uploaded_audio
from app.ui.runner import build_run_controls, ended, follow
from app.ui.sessions import Recent
from audiolm.request import ContinuationRequest

ROOT = Path(__file__).resolve().parents[2]
ENDPOINTS = {"continue", "reconstruct", "inspect", "ladder", "voices", "ablate", "detect", "checkpoints"}


@pytest.fixture(scope="module")
def page(settings) -> gr.Blocks:
    return build_ui(Service(settings), settings)


def test_app_py_is_short():
    assert len((ROOT / "app.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize(("recording_s", "told"), [(3.0, False), (2.95, False), (2.0, True)])
def test_a_recording_shorter_than_the_prompt_asked_for_is_told_of_and_what_is_made_anew_is_not(recording_s, told):
    live, kept = _Live(None), round(50 * recording_s) - 2
    live.take(Started(None, ContinuationRequest(prompt_s=3.0), recording_s, kept, kept + 352, {"coarse": 4}))
    assert live.notes() == ["the recording has 2.0 s, so all of it is the prompt (asked for 3 s)"] * told


def test_exactly_the_named_endpoints_are_public_and_described(page):
    public = {fn.api_name: fn for fn in page.fns.values() if fn.api_visibility == "public"}
    assert set(public) == ENDPOINTS
    assert all(len(fn.api_description) > 40 for fn in public.values())


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [("continue", CONTINUE_FIELDS), ("ladder", LADDER_FIELDS), ("voices", VOICES_FIELDS), ("ablate", ABLATE_FIELDS)],
)
def test_every_number_of_an_endpoint_has_its_default_or_is_the_checkpoints(page, endpoint, fields):
    parameters = page.get_api_info()["named_endpoints"][f"/{endpoint}"]["parameters"]
    by_name = {parameter["parameter_name"]: parameter for parameter in parameters}
    for name in fields:
        assert by_name[name]["parameter_has_default"]
        assert by_name[name]["parameter_default"] == (None if name in SAMPLING_BOUNDS else BOUNDS[name].default)


def test_all_model_events_share_one_group_and_one_explicit_limit(page):
    groups = {(fn.concurrency_id, fn.concurrency_limit) for fn in page.fns.values() if fn.concurrency_id == "model"}
    assert groups == {("model", 64)}


def test_every_run_of_the_page_can_be_stopped(page):
    runs = {n for n, fn in page.fns.items() if fn.concurrency_id == "model" and fn.api_visibility == "private"}
    assert {cancelled for fn in page.fns.values() for cancelled in fn.cancels} == runs
    assert len(runs) == 7 + BOUNDS["num_continuations"].maximum  # seven Start buttons, and each card's Inspect


@pytest.mark.parametrize("fails", [False, True])
def test_no_update_of_a_run_leaves_out_what_the_ones_before_showed(fails):
    def events():
        yield Loading("speech")
        yield "result"

    def on_result(result):
        yield {"heading": result}
        if fails:
            raise RuntimeError
        yield {"picture": "its picture"}
        return "Done."

    with gr.Blocks():
        controls = build_run_controls("Begin", "begin")
    updates = list(follow(controls, events, on_result, {"heading": None}))
    for before, update in pairwise(updates):
        assert set(before) <= set(update)
    assert updates[0]["heading"] is None
    assert updates[-1]["heading"] == "result"
    assert ("Done." in updates[-1][controls.status]) is not fails


def test_only_a_run_that_was_stopped_is_called_stopped():
    assert "notice stopped" in ended(stopped=True)
    assert "notice error" in ended(stopped=False)


def test_a_taken_port_is_said_without_a_traceback(monkeypatch, capsys, tmp_path):
    def taken(*arguments, **options):
        raise OSError("Cannot find empty port in range: 7860-7860")

    monkeypatch.setattr("gradio.Blocks.launch", taken)
    main = runpy.run_path(str(ROOT / "app.py"))["main"]
    assert main(["--checkpoints", "no-such-checkpoint", "--device", "cpu", "--studies", str(tmp_path)]) == 1
    assert "app.py: Cannot find empty port" in capsys.readouterr().err


def test_sliders_have_the_limits_of_the_bounds(page):
    sliders = {block.elem_id: block for block in page.blocks.values() if isinstance(block, gr.Slider)}
    own = {"": CONTINUE_FIELDS, "ladder-": LADDER_FIELDS, "voices-": VOICES_FIELDS, "ablate-": ABLATE_FIELDS}
    own["study-"] = STUDY_FIELDS
    for prefix, name in ((prefix, name) for prefix, names in own.items() for name in names if name != "seed"):
        slider, bound = sliders[prefix + name.replace("_", "-")], BOUNDS[name]
        assert (slider.minimum, slider.maximum, slider.value) == (bound.minimum, bound.maximum, bound.default)


def test_every_input_of_the_page_has_a_label(page):
    inputs = (gr.Slider, gr.Number, gr.Textbox, gr.Dropdown, gr.Radio, gr.Audio, gr.Image)
    assert all(block.label for block in page.blocks.values() if isinstance(block, inputs) and block.elem_id)


def test_audio_leaves_as_files(page):
    for block in page.blocks.values():
        if isinstance(block, gr.Audio):
            assert block.type == "filepath"
            assert block.format is None


def test_the_page_is_closed_by_default(settings):
    options = launch_options(settings)
    assert options["share"] is False
    assert options["run_history"] is False
    assert options["enable_monitoring"] is False
    assert options["max_file_size"] <= 2**28
    assert options["allowed_paths"] == [str(settings.prompts_folder)]


def test_the_queue_is_bounded_and_uploads_are_deleted_within_the_hour(page, settings):
    assert page._queue.max_size == settings.queue_size
    assert sum(page.delete_cache) <= 3600


def test_a_session_in_use_outlasts_any_number_of_new_ones(page):
    assert type(page._queue.pending_messages_per_session) is Recent
    sessions = Recent(3)
    sessions["mine"] = "a result"
    for number in range(9):
        sessions[f"new {number}"] = ""
        assert sessions["mine"] == "a result"
    assert len(sessions) == 3
    with pytest.raises(KeyError):
        sessions["new 0"]


def test_a_page_without_checkpoints_can_be_built(settings, tmp_path):
    empty = replace(settings, checkpoints=(str(tmp_path / "nothing"),), prompts_folder=tmp_path)
    assert build_ui(Service(empty), empty).fns


def test_visitors_of_a_public_page_are_offered_no_field_for_other_checkpoints(settings):
    public = replace(settings, other_checkpoints=False)
    blocks = build_ui(Service(public), public).blocks.values()
    assert not [block for block in blocks if block.elem_id == "other-checkpoint"]


@pytest.mark.parametrize("address", ["http://example.org/a.wav", "HTTPS://example.org/a.wav"])
def test_an_address_in_place_of_an_upload_is_refused(address):
    with gr.Blocks():
        audio = uploaded_audio("Recording")
    with pytest.raises(gr.Error, match="must be uploaded"):
        asyncio.run(audio.async_move_resource_to_block_cache(address))


def test_visitors_of_a_public_page_make_no_studies_and_see_no_owners_link(settings):
    public = replace(settings, studies_in_page=False)
    blocks = build_ui(Service(public), public).blocks.values()
    assert not [block for block in blocks if str(block.elem_id).startswith("study-")]


def test_the_documented_example_is_python_and_names_every_endpoint():
    compile(EXAMPLE, "example", "exec")
    for name in ENDPOINTS:
        assert f'api_name="/{name}"' in EXAMPLE


def test_cards_are_shown_without_their_front_matter():
    assert without_front_matter("---\nlicense: cc0-1.0\n---\n\n# Tiny\n") == "# Tiny\n"
    assert without_front_matter("# Tiny\n") == "# Tiny\n"


def test_building_the_page_writes_no_stub_files(page):
    assert not list((ROOT / "app").rglob("*.pyi"))
