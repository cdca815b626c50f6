"""Losses of runs, read from their logs and drawn."""

import json
from pathlib import Path

import numpy as np
import pytest

from audiolm.errors import TrainingError
from audiolm.training.__main__ import main
from audiolm.training.curves import read_log


def write_log(folder: Path, rows: list[dict], component: str | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if component is not None:
        (folder / "config.json").write_text(json.dumps({"component": component, "config": {}, "made_for": {}}))
    return folder


def trained(step: int, loss: float) -> dict:
    return {"kind": "train", "step": step, "seconds": 10.0 * step, "main_loss": loss, "main_gradient_norm": 1.0}


def validated(step: int, loss: float) -> dict:
    return {"kind": "valid", "step": step, "seconds": 10.0 * step, "loss": loss, "level_0": 2.0}


def test_losses_are_read_by_kind(tmp_path):
    folder = write_log(tmp_path / "a", [trained(1, 9.0), validated(2, 5.0), trained(3, 4.0)], "stage_coarse")
    curves = read_log(folder)
    assert (curves.name, curves.component) == ("a", "stage_coarse")
    assert curves.train.tolist() == [[1, 10, 9], [3, 30, 4]]
    assert curves.valid.tolist() == [[2, 20, 5]]


def test_what_a_resumed_run_did_again_replaces_what_it_had_done(tmp_path):
    rows = [trained(1, 9.0), validated(2, 5.0), trained(5, 3.0), trained(3, 4.0), validated(4, 2.0)]
    curves = read_log(write_log(tmp_path / "a", rows))
    assert curves.train[:, 0].tolist() == [1, 3]
    assert curves.valid[:, 0].tolist() == [2, 4]
    assert curves.component == "a"


def test_a_half_written_line_is_left_out_and_an_empty_log_refused(tmp_path):
    folder = write_log(tmp_path / "a", [trained(1, 9.0)])
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"kind": "train", "st')
    assert len(read_log(folder).train) == 1
    with pytest.raises(TrainingError, match="no losses"):
        read_log(write_log(tmp_path / "b", []))
    with pytest.raises(TrainingError, match="not a training run"):
        read_log(tmp_path)


@pytest.mark.parametrize("row", [{"step": "2"}, {"seconds": None}, {"main_loss": [1.0]}])
def test_figures_that_are_no_numbers_are_named_by_their_line(tmp_path, row):
    folder = write_log(tmp_path / "a", [trained(1, 9.0), trained(2, 5.0) | row])
    with pytest.raises(TrainingError, match=r"log.jsonl:2: step, seconds and loss must be numbers, found"):
        read_log(folder)


@pytest.mark.parametrize("row", [[], 3, {"kind": ["train"], "step": 2, "seconds": 1.0, "loss": 1.0}])
def test_rows_of_another_kind_are_left_out(tmp_path, row):
    assert len(read_log(write_log(tmp_path / "a", [trained(1, 9.0), row])).train) == 1


def test_a_picture_of_another_kind_is_refused(tmp_path, capsys):
    folder = write_log(tmp_path / "a", [trained(1, 9.0)])
    assert main(["curves", str(folder), "--out", str(tmp_path / "curves.doc")]) == 2
    assert "ends in .png, .svg, .pdf, found 'curves.doc'" in capsys.readouterr().err


@pytest.mark.parametrize("over", ["hours", "steps"])
def test_the_command_draws_a_row_for_every_component(tmp_path, over):
    steps = range(1, 200)
    rows = [trained(step, 9.0 / step) for step in steps] + [validated(200, 3.0)]
    runs = [
        write_log(tmp_path / name, rows, kind) for name, kind in (("a", "codec"), ("b", "codec"), ("c", "stage_fine"))
    ]
    out = tmp_path / "pictures" / "curves.png"
    assert main(["curves", *map(str, runs), "--out", str(out), "--over", over]) == 0
    content = out.read_bytes()
    assert content.startswith(b"\x89PNG")
    height = int(np.frombuffer(content[20:24], ">u4")[0])
    assert height == 500  # two rows
