from __future__ import annotations

import csv
import json

import pytest
import soundfile
from PIL import Image
from safetensors.torch import load_file

from audiolm.audio import files
from audiolm.inspection.files import write_timeline
from audiolm.inspection.timeline import of_continuation
from audiolm.stages import finished


@pytest.fixture(scope="module")
def timeline(pipeline, continuation):
    return finished(of_continuation(pipeline, continuation, with_scores=True))


@pytest.fixture(scope="module")
def written(timeline, tmp_path_factory):
    return write_timeline(timeline, tmp_path_factory.mktemp("written") / "new", "a comment")


def test_sound_pictures_and_numbers_are_there(timeline, written):
    assert all(path.stat().st_size > 0 for path in written.paths)
    assert soundfile.info(written.audio).frames == timeline.waveform.samples.shape[0]
    assert files.read_comment(written.audio) == "a comment"
    with Image.open(written.png) as picture:
        assert picture.format == "PNG"
    assert "<svg" in written.svg.read_text(encoding="utf-8")
    assert json.loads(written.numbers.read_text())["prompt_s"] == timeline.prompt_s


def test_the_table_has_one_row_a_token_of_every_lane(timeline, written):
    with written.table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["lane"] for row in rows} == {lane.label for lane in timeline.lanes}
    assert len(rows) == sum(int((lane.ids >= 0).sum()) for lane in timeline.lanes)


def test_tensors_are_the_lanes_ids_and_scores(timeline, written):
    tensors = load_file(written.tokens)
    for lane in timeline.lanes:
        assert tensors[f"{lane.label}/ids"].tolist() == lane.ids.tolist()
        assert tensors[f"{lane.label}/nats"].shape == lane.ids.shape
        assert tensors[f"{lane.label}/top_ids"].shape == (*lane.ids.shape, 5)
