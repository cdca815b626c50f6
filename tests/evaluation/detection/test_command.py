"""The command from end to end on a checkpoint of random weights: every row, files, pictures, facts of the card."""

from __future__ import annotations

import json

import pytest
import torch

from audiolm.audio.files import read_comment
from audiolm.checkpoints.card import check_facts
from audiolm.checkpoints.format import load_checkpoint
from audiolm.checkpoints.pictures import read_picture
from audiolm.data import espeak
from audiolm.data.corpus import CorpusWriter, to_pcm
from audiolm.evaluation.__main__ import main
from audiolm.evaluation.detection import fresh, semantic_probe
from audiolm.evaluation.detection.command import _items
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.detection.judging import forced_probability
from audiolm.evaluation.detection.rows import ROWS
from audiolm.evaluation.subject import from_checkpoint
from audiolm.pipeline import Pipeline
from audiolm.receipt import Receipt
from audiolm.streams import Waveform
from tests.evaluation.detection.material import recording, write_pairs
from tests.tiny import make_tiny_checkpoint

CARD = {
    "name": "tiny-speech",
    "domain": "speech",
    "licence": "cc0-1.0",
    "summary": "Random weights.",
    "about": "Nothing.",
    "data": [{"name": "noise", "hours": 0, "licence": "CC0", "use": "none"}],
    "credit": "Nobody.",
    "training": [],
    "limits": ["It has learnt nothing."],
    "worse_for": ["Everyone."],
    "watermark": "None.",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """speech/ (a checkpoint), pairs/ that it might have made, data/ and other/."""
    root = tmp_path_factory.mktemp("detection")
    make_tiny_checkpoint(root / "speech", "speech")
    components = {name: entry.hash for name, entry in load_checkpoint(root / "speech").info.components.items()}
    write_pairs(root / "pairs", components, lambda original: original.sign() * original.abs().sqrt() * 0.2)
    for seed, name in enumerate(("data", "other")):
        with CorpusWriter(root / name) as writer:
            for index in range(4):
                pcm = to_pcm(recording(100 * seed + index, 96_000).numpy())
                writer.add(pcm, id=f"i{index}", group=f"voice-{index}", split="test", source="s", licence="x")
    return root


def test_every_row_is_measured_written_and_fit_for_a_card(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(fresh.PROMPT_S, "speech", 0.6)
    monkeypatch.setattr(fresh, "TOTAL_S", 3.6)
    monkeypatch.setattr(espeak.shutil, "which", lambda name: None)
    options = {"checkpoint": "speech", "pairs": "pairs", "data": "data", "other": "other"}
    arguments = [word for name, path in options.items() for word in (f"--{name}", str(folder / path))]
    arguments += ["--work", str(tmp_path / "work"), "--pictures", str(tmp_path / "pictures"), "--items", "2"]
    arguments += [word for name in ("json", "markdown", "facts") for word in (f"--{name}", str(tmp_path / name))]
    assert main(["detector", *arguments]) == 0
    report = json.loads((tmp_path / "json").read_text())
    assert [row["row"] for row in report["rows"]] == list(ROWS)
    assert all(row["figures"] and row["figures"][0]["name"] != "all" for row in report["rows"])
    printed, markdown = capsys.readouterr().out, (tmp_path / "markdown").read_text()
    for name in ROWS:
        assert f"\n{name}  " in printed
        assert f"### {name} " in markdown
    kept = list((tmp_path / "work").rglob("*.wav"))
    assert len(kept) == 2
    assert all(Receipt.from_json(read_comment(path)).watermark for path in kept), "F judges what visitors get"
    facts = json.loads((tmp_path / "facts").read_text())
    training = {"component": "detector", "parameters": 1, "steps": 1, "hours": 0, "hardware": "-", "command": "-"}
    checked = check_facts(CARD | {"training": [training | {"curve": []}]} | facts)
    assert {row["what"].split()[0] for row in checked["figures"]} == set(ROWS)
    assert len(checked["pictures"]) == 3
    for picture in checked["pictures"]:
        assert read_picture(tmp_path / "pictures" / picture["file"])


def test_rows_can_be_chosen_and_unknown_ones_are_named(folder, tmp_path, capsys):
    common = ["detector", "--checkpoint", str(folder / "speech"), "--pairs", str(folder / "pairs")]
    assert main([*common, "--rows", "D11", "--items", "1", "--json", str(tmp_path / "json")]) == 0
    assert [row["row"] for row in json.loads((tmp_path / "json").read_text())["rows"]] == ["D11"]
    assert main([*common, "--rows", "D2,D99"]) == 2
    assert "found D99" in capsys.readouterr().err
    assert main([*common, "--rows", "D2"]) == 0
    assert "give --data" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("D5=0", "at least 1, found 0"),
        ("-3", "at least 1, found -3"),
        ("D1=5,D99=5", "found D99"),
        ("D1=many", "found 'D1=many'"),
        ("=", "found '='"),
    ],
)
def test_items_that_no_row_could_be_measured_on_are_refused(items, message, capsys):
    command = ["detector", "--checkpoint", "nowhere-to-be-found", "--pairs", "none", f"--items={items}"]
    assert main(command) == 2
    assert message in capsys.readouterr().err


def test_items_are_by_row_and_for_all_others():
    assert _items("") == {}
    assert _items("50") == {"": 50}
    assert _items("D2=500,D5=1,7") == {"D2": 500, "D5": 1, "": 7}


def test_pairs_of_another_checkpoint_end_the_command(folder, tmp_path, capsys):
    make_tiny_checkpoint(tmp_path / "other", "speech", seed=5)
    assert main(["detector", "--checkpoint", str(tmp_path / "other"), "--pairs", str(folder / "pairs")]) == 2
    assert "was made with codec" in capsys.readouterr().err


def test_a_forced_probability_is_the_verdicts_where_it_gives_one(folder):
    pipeline = Pipeline(load_checkpoint(folder / "speech"))
    for seed in range(3):
        clip = recording(seed)
        verdict = pipeline.detect(Waveform(clip))
        assert verdict.probability is not None
        assert forced_probability(pipeline, clip) == pytest.approx(verdict.probability, abs=1e-6)


def test_the_probe_hears_what_the_semantic_features_hold(folder, tmp_path):
    subject = from_checkpoint(str(folder / "speech"))
    slow = write_pairs(
        tmp_path / "slow", subject.components, lambda original: original * (torch.arange(64_000) % 9_000 < 4_000)
    )
    same = write_pairs(tmp_path / "same", subject.components, lambda original: original)
    assert semantic_probe.probe_accuracy(DetectionInputs(subject, slow)).value > 0.9
    assert semantic_probe.probe_accuracy(DetectionInputs(subject, same)).value == 0.5
