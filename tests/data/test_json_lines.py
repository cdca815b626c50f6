import json

import pytest

from audiolm.data.json_lines import add_lines, mended_lines, read_lines

NOTES = [{"title": "one\u2028two\u0085three", "row": 1}, {"title": "Für", "row": 2}]


def test_what_was_added_is_read_back_whatever_is_in_it(tmp_path):
    path = tmp_path / "notes.jsonl"
    assert mended_lines(path) == []
    add_lines(path, NOTES[:1])
    add_lines(path, NOTES[1:])
    assert read_lines(path) == mended_lines(path) == NOTES


def test_the_line_that_a_run_was_killed_in_is_cut_off(tmp_path):
    path = tmp_path / "notes.jsonl"
    add_lines(path, NOTES)
    whole = path.read_bytes()
    path.write_bytes(whole + json.dumps(NOTES[0]).encode()[:-3])
    with pytest.raises(json.JSONDecodeError):
        read_lines(path)
    assert mended_lines(path) == NOTES
    assert path.read_bytes() == whole


def test_a_missing_file_is_no_empty_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_lines(tmp_path / "notes.jsonl")
