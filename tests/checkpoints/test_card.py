import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from audiolm.checkpoints import card
from audiolm.checkpoints.pictures import picture_names, read_picture, read_pictures, require_pictures, with_pictures
from audiolm.errors import CheckpointError

FACTS: dict[str, Any] = {
    "name": "speech-small",
    "domain": "speech",
    "licence": "cc-by-4.0",
    "summary": "English read speech, 9 hours.\nWords are not to be expected.",
    "about": "A small AudioLM.",
    "data": [{"name": "LibriSpeech | train-clean-5", "hours": 4, "licence": "CC BY 4.0", "use": "all components"}],
    "credit": "LibriSpeech: V. Panayotov and others.",
    "training": [
        {
            "component": "codec",
            "parameters": 6300000,
            "steps": 4000,
            "hours": 0.5,
            "hardware": "2 CPU cores",
            "command": "python -m audiolm.training codec --data data/speech --out runs/codec",
            "curve": [0.5, 0.4, 0.3, 0.29],
        }
    ],
    "figures": [
        {
            "what": "STOI, 12 levels",
            "value": "0.91 ± 0.01",
            "baseline": "",
            "n": 60,
            "command": "python -m audiolm.evaluation codec",
            "date": "2026-01-31",
        }
    ],
    "limits": ["Mostly babble."],
    "worse_for": ["Children and accents other than US English."],
    "watermark": "The output carries no watermark.",
}

PICTURE = {"file": "pictures/losses.png", "caption": "Losses of all [rounds]"}


def test_card_has_front_matter_that_the_hub_reads():
    text = card.render(FACTS)
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "cc-by-4.0"
    assert front["library_name"] == "audiolm"
    assert "speech" in front["tags"]


def test_card_says_all_that_it_was_given():
    text = card.render(FACTS)
    for wanted in (
        "LibriSpeech \\| train-clean-5",
        "6,300,000",
        "█",
        "0.5 → 0.29",
        "STOI, 12 levels",
        "2026-01-31",
        "Mostly babble.",
        "Children",
        "no watermark",
        "--checkpoint speech-small",
        "runs/codec",
    ):
        assert wanted in text


def test_facts_are_read_from_json_with_whole_hours(tmp_path: Path):
    path = tmp_path / "card.json"
    path.write_text(json.dumps(FACTS))
    assert card.read_facts(path)["data"][0]["hours"] == 4.0


def test_card_without_figures_says_so():
    assert "None measured yet." in card.render(FACTS | {"figures": []})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"limits": []}, "may not leave out limits"),
        ({"watermark": ""}, "may not leave out watermark"),
        ({"licence": "CC BY"}, "licence must be"),
        ({"summary": "one\ntwo\nthree"}, "at most 2 lines"),
        ({"domain": "violin"}, "domain must be one of speech, piano, found 'violin'"),
        ({"data": [{"name": "x"}]}, r"data\[0\]: missing field"),
        ({"limits": [3]}, "limits: unexpected 3"),
        ({"mood": "good"}, "unknown field"),
    ],
)
def test_incomplete_or_wrong_facts_are_refused(change: dict[str, Any], reason: str):
    with pytest.raises(CheckpointError, match=reason):
        card.render(copy.deepcopy(FACTS) | change)


def test_a_fact_left_out_is_named():
    with pytest.raises(CheckpointError, match=r"missing field.*credit"):
        card.render({name: value for name, value in FACTS.items() if name != "credit"})


def test_sparkline_spans_the_values_and_stays_within_its_width():
    line = card.sparkline([float(i) for i in range(100)], width=10)
    assert line.startswith("▁")
    assert line.endswith("█ 0 → 99")
    assert len(line.split()[0]) == 10
    assert card.sparkline([2.0]) == "▁ 2 → 2"
    assert card.sparkline([]) == ""


PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"


def test_the_campaign_and_its_pictures_have_a_section():
    facts = FACTS | {"campaign": "### Round 1\n\nLonger windows helped.", "pictures": [PICTURE]}
    text = card.render(facts)
    assert "## The campaign\n\n### Round 1\n\nLonger windows helped." in text
    assert "![Losses of all rounds](losses.png)" in text
    assert picture_names(text) == ["losses.png"]
    assert "The campaign" not in card.render(FACTS)


def test_pictures_with_one_name_are_refused():
    with pytest.raises(CheckpointError, match="names of their own"):
        card.render(FACTS | {"pictures": [PICTURE, PICTURE | {"file": "losses.png"}]})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("losses.svg", b"<svg/>", "ends in .png or .jpg"),
        ("my losses.png", PNG, "ends in .png or .jpg"),
        ("losses.png", b"GIF89a", "not a picture of the kind"),
        ("losses.png", PNG + bytes(2**20), "more than the 1048576 allowed"),
        ("losses.png", None, "missing"),
    ],
)
def test_what_is_no_picture_is_refused(name: str, content: bytes | None, message: str, tmp_path: Path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_picture(tmp_path / name)


def test_a_card_shows_eight_pictures_at_most(tmp_path: Path):
    names = [f"{index}.png" for index in range(9)]
    text = " ".join(f"![{name}]({name})" for name in names)
    for name in names:
        (tmp_path / name).write_bytes(PNG)
    assert with_pictures(text, tmp_path).count("data:") == 8
    assert with_pictures(text, tmp_path).endswith("(8.png)")
    for refused in (
        lambda: read_pictures(tmp_path, text),
        lambda: require_pictures("here", text, dict.fromkeys(names, PNG)),
    ):
        with pytest.raises(CheckpointError, match="at most 8 pictures, found 9"):
            refused()


def test_only_pictures_beside_the_card_are_its_pictures(tmp_path: Path):
    text = "![a](a.png) ![b](../b.png) ![c](https://example.org/c.png) ![d](sub/d.png) ![e](missing.jpg) [f](f.png)"
    (tmp_path / "a.png").write_bytes(PNG)
    assert picture_names(text) == ["a.png", "missing.jpg"]
    whole = with_pictures(text, tmp_path)
    assert f"![a](data:image/png;base64,{base64.b64encode(PNG).decode()})" in whole
    assert "(e) [f](f.png)" in whole
