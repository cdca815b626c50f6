import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from audiolm.checkpoints.format import load_checkpoint
from audiolm.config import DetectorConfig
from audiolm.data.pairs import SPLITS
from audiolm.detector import Detector
from audiolm.errors import TrainingError
from audiolm.evaluation.detection.command import _items, _parser
from audiolm.streams import Waveform
from audiolm.training import __main__ as training
from audiolm.training import detector_data, detector_rebuild, detector_views
from audiolm.training.runs import write_run
from tests.pipeline.material import recording
from tests.tiny import make_tiny_checkpoint
from tests.training.test_detector import token_cache

PICTURE = b"\x89PNG\r\n\x1a\n"
REPORT = {"rows": [{"row": "D1", "met": False}, {"row": "D2", "met": True}, {"row": "D8", "met": None}]}


def arguments(checkpoint: Path, tokens: Path, folder: Path, *options: str) -> Namespace:
    parser = ArgumentParser()
    detector_rebuild.add_arguments(parser)
    required = ["--checkpoint", str(checkpoint), "--tokens", str(tokens), "--out", str(folder / "new")]
    sizes = ["--work", str(folder / "work"), "--count", "3", "--valid-count", "2", "--test-count", "2"]
    budget = ["--seconds", "2", "--max-minutes", "60", "--steps", "2", "--device", "cpu"]
    return parser.parse_args([*required, *sizes, *budget, *options])


def rebuild(checkpoint: Path, tokens: Path, folder: Path, *options: str) -> None:
    detector_rebuild.run(arguments(checkpoint, tokens, folder, *options))


@pytest.fixture
def measured(monkeypatch):
    """Stands in for the watermark and the evaluation, which have tests of their own."""

    def measure(args, checkpoint, pairs):
        assert {split for split in SPLITS if (pairs / split).is_dir()} == set(SPLITS)
        assert load_checkpoint(checkpoint).detector.config.withheld == ""  # or nothing could be measured
        (args.work / "figures.md").write_text("D1: half of it\n")
        (args.work / "pictures").mkdir(exist_ok=True)
        (args.work / "pictures/new.png").write_bytes(PICTURE)
        (args.work / "facts.json").write_text(json.dumps({"pictures": [{"file": "new.png", "caption": "Errors."}]}))
        return REPORT

    monkeypatch.setattr(detector_data, "mark", lambda waveform: waveform)
    monkeypatch.setattr(detector_rebuild, "_measure", measure)


def test_one_command_makes_a_checkpoint_whose_detector_withholds_what_missed_its_targets(tmp_path, measured):
    checkpoint = make_tiny_checkpoint(tmp_path / "tiny").folder
    with open(checkpoint / "README.md", "a") as card:
        card.write("\n![Kept.](kept.png)\n\n## Detector\n\n![Old.](old.png)\n")
    for name in ("kept.png", "old.png"):
        (checkpoint / name).write_bytes(PICTURE)
    before = load_checkpoint(checkpoint)
    tokens = token_cache(tmp_path / "tokens", checkpoint)
    rebuild(checkpoint, tokens, tmp_path)
    after = load_checkpoint(tmp_path / "new")
    assert after.info.components["codec"].hash == before.info.components["codec"].hash
    assert after.info.components["detector"].hash != before.info.components["detector"].hash
    assert "## Detector\n\n![Errors.](new.png)\n\nErrors.\n\nD1: half of it\n" in after.info.card
    assert {path.name for path in (tmp_path / "new").glob("*.png")} == {"kept.png", "new.png"}
    verdict = after.detector.judge(Waveform(recording(3.0).samples))
    assert (verdict.label, verdict.probability) == ("withheld", None)
    assert "missed its targets, or was not judged (D1)" in verdict.reason
    rebuild(checkpoint, tokens, tmp_path)
    assert load_checkpoint(tmp_path / "new").detector.config.withheld != ""
    trained = (tmp_path / "work/detector/weights.safetensors").stat().st_mtime_ns
    rebuild(checkpoint, tokens, tmp_path, "--keep-scores")
    again = load_checkpoint(tmp_path / "new")
    assert again.info.components["detector"].hash == after.info.components["detector"].hash
    assert (tmp_path / "work/detector/weights.safetensors").stat().st_mtime_ns > trained  # written, not trained anew
    assert again.detector.config.withheld == ""
    assert again.detector.config.calibration == after.detector.config.calibration


def test_training_starts_from_the_earlier_detector_that_is_given(tmp_path, monkeypatch):
    """The steps before it, and those after, are left out."""
    called: list[str] = []

    def call(*arguments) -> None:
        called[:] = map(str, arguments)
        raise TrainingError("that far")

    for step in (detector_data, detector_views):
        monkeypatch.setattr(step, "run", lambda args: None)
    monkeypatch.setattr(detector_rebuild, "_call", call)
    model = Detector(DetectorConfig(channels=(6, 8), num_heard=5, heard_width=8))
    for component in ("detector", "codec"):
        write_run(tmp_path / component, component, model, model.config, {})
    with pytest.raises(TrainingError, match="that far"):
        rebuild(tmp_path, tmp_path, tmp_path)
    assert called[:2] == ["audiolm.training", "detector"]
    assert "--init" not in called
    with pytest.raises(TrainingError, match="that far"):
        rebuild(tmp_path, tmp_path, tmp_path, "--init", str(tmp_path / "detector"))
    assert called[-2:] == ["--init", str(tmp_path / "detector")]
    called.clear()
    with pytest.raises(TrainingError, match="a run of codec"):
        rebuild(tmp_path, tmp_path, tmp_path, "--init", str(tmp_path / "codec"))
    assert called == []


def test_pairs_are_made_as_they_are_asked_for(tmp_path, monkeypatch):
    def made(args: Namespace) -> None:
        assert (args.count, args.valid_count, args.test_count, args.unpaired) == (3, 2, 2, 0.9)
        assert (args.seed, args.seconds, args.out) == (7, 2.0, tmp_path / "work/pairs")
        raise TrainingError("that far")

    monkeypatch.setattr(detector_data, "run", made)
    with pytest.raises(TrainingError, match="that far"):
        rebuild(tmp_path, tmp_path, tmp_path, "--unpaired", "0.9", "--seed", "7")


def test_training_takes_the_options_it_is_given(tmp_path, monkeypatch):
    parsed = []

    def call(module, *options) -> None:
        assert module == "audiolm.training"
        assert training.main(list(map(str, options))) == 0
        raise TrainingError("that far")

    for step in (detector_data, detector_views):
        monkeypatch.setattr(step, "run", lambda args: None)
    monkeypatch.setattr(detector_rebuild, "_call", call)
    monkeypatch.setattr(training, "_train", parsed.append)
    with pytest.raises(TrainingError, match="that far"):
        rebuild(tmp_path, tmp_path, tmp_path, "--band-error", "0.02", "--seed", "7")
    (args,) = parsed
    assert (args.command, args.data, args.out) == ("detector", tmp_path / "work/pairs", tmp_path / "work/detector")
    assert (args.steps, args.max_minutes, args.band_error, args.seed) == (2, 15.0, 0.02, 7)
    assert args.keep_best


@pytest.mark.parametrize("options", [(), ("--items", "D2=500,D5=60", "--data", "a", "b", "--other", "c")])
def test_the_evaluation_takes_the_options_it_is_given_and_writes_where_its_figures_are_read(
    tmp_path, monkeypatch, options
):
    parsed = []

    def call(module, command, *given) -> None:
        assert (module, command) == ("audiolm.evaluation", "detector")
        args = _parser().parse_args(list(map(str, given)))
        args.json.write_text(json.dumps(REPORT))
        args.markdown.write_text("D1: half of it\n")
        args.facts.write_text(json.dumps({"pictures": []}))
        parsed.append(args)

    monkeypatch.setattr(detector_rebuild, "_call", call)
    work = tmp_path / "work"
    work.mkdir()
    rebuilt = arguments(tmp_path, tmp_path, tmp_path, *options)
    assert detector_rebuild._measure(rebuilt, tmp_path / "new", work / "pairs") == REPORT
    assert detector_rebuild._figures(work) == "D1: half of it\n"
    (args,) = parsed
    assert (Path(args.checkpoint), args.pairs, args.work) == (tmp_path / "new", work / "pairs", work)
    assert args.pictures == work / detector_rebuild.PICTURES
    assert (args.data, args.other) == (rebuilt.data, rebuilt.other)
    assert _items(args.items) == ({"D2": 500, "D5": 60} if options else {})


def test_only_rows_that_speak_of_the_score_count_as_missed():
    rows = [{"row": name, "met": False} for name in ("D5", "D11", "D13", "F", "D2", "D5")]
    assert detector_rebuild.missed_rows({"rows": rows}) == ["D5", "D2"]
    assert detector_rebuild.missed_rows({"rows": [*rows, {"row": "D13", "met": True}]}) == []
    assert detector_rebuild.missed_rows(json.loads(json.dumps(REPORT))) == ["D1"]
    unjudged = [{"row": name, "met": None} for name in ("D1", "D8", "D2", "D13")]
    assert detector_rebuild.missed_rows({"rows": unjudged}) == ["D1", "D2"]


def test_the_cards_own_section_is_replaced_and_a_new_one_stands_before_the_limits():
    card = "# Name\n\nText.\n\n## Limits\n\n- none\n"
    first = detector_rebuild.with_section(card, "Detector", "one")
    assert first == "# Name\n\nText.\n\n## Detector\n\none\n\n## Limits\n\n- none\n"
    assert detector_rebuild.with_section(first, "Detector", "two\n") == first.replace("\none\n", "\ntwo\n")
    assert detector_rebuild.with_section("# Name\n", "Detector", "one") == "# Name\n\n## Detector\n\none\n\n"
