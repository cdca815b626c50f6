"""The command from end to end, on a checkpoint of random weights and recordings of noise."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from audiolm.checkpoints.format import load_checkpoint
from audiolm.config import STAGES, USUAL_SAMPLING, SamplingConfig
from audiolm.data.corpus import Corpus, CorpusWriter, to_pcm
from audiolm.data.tokens import build, list_recordings
from audiolm.errors import EvaluationError
from audiolm.evaluation import continuations, speaker
from audiolm.evaluation.__main__ import _parser, _request, main
from audiolm.evaluation.report import Figure, Report, RowReport
from audiolm.evaluation.rows import ROWS
from audiolm.evaluation.subject import Subject, from_checkpoint, untrained
from audiolm.intervals import Interval
from audiolm.training.runs import write_run
from tests.tiny import make_tiny_checkpoint, tiny_modules

SHORT = ["--prompt-s", "0.6", "--continuation-s", "0.6"]


def recording(seed: int) -> np.ndarray:
    """Pitched noise whose level comes and goes."""
    generator = np.random.default_rng(seed)
    time = np.arange(24_000) / 16_000
    tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in generator.uniform(100, 2000, size=4))
    return (0.05 * tones + 0.02 * generator.normal(size=len(time))) * (1.0 + 0.8 * np.sin(2 * np.pi * 3 * time)) / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """data/, checkpoints speech/ and piano/, a codec run."""
    root = tmp_path_factory.mktemp("evaluation")
    with CorpusWriter(root / "data") as writer:
        for index in range(14):
            group = f"voice-{index}" if index < 10 else f"voice-{index % 2}"
            writer.add(
                to_pcm(recording(index)), id=f"{group}/{index}", group=group, split="test", source="s", licence="x"
            )
        for index in range(3):
            writer.add(to_pcm(recording(50 + index)), id=f"t{index}", group="t", split="train", source="s", licence="x")
        writer.add(to_pcm(recording(53)), id="word", group="t", split="train", source="s", licence="x", fluent=False)
    for domain in ("speech", "piano"):
        make_tiny_checkpoint(root / domain, domain)
    codec = tiny_modules()["codec"]
    write_run(root / "codec", "codec", codec, codec.config, {})
    return root


def run(folder, tmp_path, domain, *options):
    """The report as JSON says it, by row."""
    out = tmp_path / "out.json"
    status = main([domain, "--data", str(folder / "data"), "--json", str(out), *options])
    assert status == 0
    return {row["row"]: row for row in json.loads(out.read_text())["rows"]}


def values(row):
    return {figure["name"]: figure["value"] for figure in row["figures"]}


def test_a_codec_run_is_measured_without_the_rest(folder, tmp_path, capsys):
    rows = run(folder, tmp_path, "speech", "--codec", str(folder / "codec"), "--items", "2", "--rows", "C1,C2,C4")
    measured = values(rows["C1"])
    assert measured["SI-SDR (dB), 4 levels"] is not None
    assert {"STOI, 1 level", "PESQ-wb, 2 levels", "line height (dB), originals"} <= set(measured)
    assert len(values(rows["C2"])) == 4
    assert rows["C4"]["figures"][0]["reason"].startswith("needs the semantic")
    assert "C1  Codec on the hold-out" in capsys.readouterr().out


def test_probes_and_likelihood_of_a_checkpoint(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("audiolm.evaluation.probes.MIN_ITEMS_A_SPEAKER", 2)
    rows = run(folder, tmp_path, "speech", "--checkpoint", str(folder / "speech"), "--rows", "C3,C4")
    assert {"probe on histogram, semantic", "histogram: semantic - coarse", "commonest answer"} <= set(
        values(rows["C3"])
    )
    likelihood = values(rows["C4"])
    assert likelihood["coarse: nats"] == pytest.approx(2 * np.log(32), rel=0.2)  # random weights: about uniform
    assert None not in likelihood.values()
    assert rows["C4"]["met"] is False
    assert rows["C3"]["notes"][1] == "intervals over the 2 speakers or pieces that test it"
    assert rows["C4"]["notes"][1] == "intervals over 10 speakers or pieces, whose windows hang together"


def test_tokens_of_a_cache_give_the_figures_of_the_recordings(folder, tmp_path):
    models = load_checkpoint(folder / "speech")
    meta = {name: models.info.components[name].token_hash for name in ("codec", "semantic")}
    meta |= {"num_levels": 4, "codebook_size": 32, "num_clusters": 24}
    recordings = list_recordings([Corpus(folder / "data")], [])
    build(recordings, models.codec.encode, models.semantic.encode, out=tmp_path / "tokens", meta=meta)
    options = ("--checkpoint", str(folder / "speech"), "--rows", "C2,C4")
    direct = run(folder, tmp_path, "speech", *options)
    cached = run(folder, tmp_path, "speech", *options, "--tokens", str(tmp_path / "tokens"))
    assert cached["C2"]["notes"][1] == "intervals over 10 speakers or pieces"
    for row in ("C2", "C4"):
        expected = values(direct[row])
        assert list(values(cached[row]).values()) == pytest.approx(list(expected.values()), rel=1e-4)
    assert cached["C4"]["notes"][2].endswith("on 3 fluent training items, all that the token caches have")


def test_a_token_cache_of_other_tokenizers_is_refused(folder, tmp_path, capsys):
    models = load_checkpoint(folder / "speech")
    meta = {"codec": "0" * 64, "semantic": "0" * 64, "num_levels": 4, "codebook_size": 32, "num_clusters": 24}
    recordings = list_recordings([Corpus(folder / "data")], [])[:1]
    build(recordings, models.codec.encode, models.semantic.encode, out=tmp_path / "tokens", meta=meta)
    options = ["--checkpoint", str(folder / "speech"), "--tokens", str(tmp_path / "tokens")]
    assert main(["speech", *options]) == 2
    assert "was made with codec 000000000000" in capsys.readouterr().err


def test_continuations_are_made_once_and_kept(folder, tmp_path, monkeypatch):
    def spectrum(waveform):
        profile = np.abs(np.fft.rfft(waveform.numpy(), 2048))
        return profile / np.linalg.norm(profile)

    monkeypatch.setattr(speaker, "speaker_encoder", lambda: spectrum)
    options = ("--checkpoint", str(folder / "speech"), "--work", str(tmp_path / "work"), *SHORT, "--items", "11")
    first = run(folder, tmp_path, "speech", *options, "--rows", "C5,C6,C7")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.wav")}
    assert len(kept) == 22  # a trained and an untrained one of each prompt
    assert values(first["C5"])["right speaker first"] is not None
    assert values(first["C7"])["originals at the same instant"] is not None
    assert first["C6"]["figures"][0]["reason"] == "keys and onsets are a matter of music"
    again = run(folder, tmp_path, "speech", *options, "--rows", "C5,C7")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert values(again["C5"]) == values(first["C5"])
    run(folder, tmp_path, "speech", *options, "--rows", "C7", "--temperatures", "1", "1", "1")
    assert all(path.stat().st_mtime_ns != time for path, time in kept.items())  # another request: made anew


def test_piano_has_its_own_probes_and_aspects(folder, tmp_path):
    options = ("--checkpoint", str(folder / "piano"), "--work", str(tmp_path / "work"), *SHORT, "--items", "4")
    rows = run(folder, tmp_path, "piano", *options, "--rows", "C1,C3,C5,C6")
    assert not any("STOI" in name for name in values(rows["C1"]))
    assert values(rows["C3"])["probe on vector, semantic"] is not None
    assert values(rows["C5"]) == {"all": None}
    assert None not in values(rows["C6"]).values()
    assert {"loudness (LU), an untrained stage's continuation", "polyphony: prompts, estimated"} <= set(
        values(rows["C6"])
    )
    assert rows["C6"]["met"] is None
    assert rows["C6"]["notes"][-1] == "not judged: 4 pairs are too few for p < 0.01"


def test_every_row_is_measured_on_every_corpus(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(continuations, "MIN_CONTINUATION_S", 0.3)
    with CorpusWriter(tmp_path / "real") as writer:
        for index in range(2):
            pcm = to_pcm(recording(70 + index)[:16_000])  # 1 s: shorter than prompt and continuation
            writer.add(pcm, id=f"r{index}", group=f"r{index}", split="test", source="s", licence="x")
    out = tmp_path / "out.json"
    data = ["--data", str(folder / "data"), str(tmp_path / "real"), "--work", str(tmp_path / "work")]
    options = ["--checkpoint", str(folder / "speech"), *SHORT, "--items", "3", "--rows", "C1,C4,C7"]
    assert main(["speech", *data, *options, "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["row"], row["corpus"]) for row in rows] == [
        (row, corpus) for row in ("C1", "C4", "C7") for corpus in ("data", "real")
    ]
    assert all(figure["value"] is not None for row in rows for figure in row["figures"])
    counted = "unigram and bigram counted on 3 fluent training items"  # the hold-out's
    assert rows[3]["notes"][2] == f"{counted}, too few to judge by: give --tokens"
    assert rows[5]["notes"][0] == "2 prompts from 2 speakers, pieces or files, continued for 0.44 s"
    assert len(list((tmp_path / "work").glob("*/real/*.wav"))) == 4  # a trained and an untrained one of each prompt


def test_a_corpus_without_long_recordings_says_so(folder, tmp_path):
    options = ("--checkpoint", str(folder / "speech"), "--work", str(tmp_path / "work"), "--rows", "C7")
    rows = run(folder, tmp_path, "speech", *options)
    assert rows["C7"]["figures"][0]["reason"].endswith("no fluent items of split test of at least 5.04 s")


def test_corpora_of_one_name_are_refused(folder, capsys):
    data = ["--data", str(folder / "data"), str(folder / "data")]
    assert main(["speech", "--checkpoint", str(folder / "speech"), *data]) == 2
    assert "found data, data" in capsys.readouterr().err


def test_rows_that_need_continuations_say_so(folder, tmp_path):
    rows = run(folder, tmp_path, "speech", "--checkpoint", str(folder / "speech"), "--rows", "C7")
    assert "--work" in rows["C7"]["figures"][0]["reason"]
    rows = run(folder, tmp_path, "speech", "--codec", str(folder / "codec"), "--rows", "C7")
    assert "--checkpoint" in rows["C7"]["figures"][0]["reason"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["speech"], "give either --checkpoint"),
        (["speech", "--rows", "C1,C9", "--checkpoint", "x"], "found C9"),
        (["speech", "--checkpoint", "nowhere-to-be-found"], "no embedded checkpoint"),
    ],
)
def test_a_command_that_cannot_run_says_why(options, message, capsys):
    assert main(options) == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_of_the_other_domain_is_refused(folder, capsys):
    assert main(["piano", "--checkpoint", str(folder / "speech")]) == 2
    assert "a checkpoint of speech" in capsys.readouterr().err


def test_a_run_of_another_component_is_refused(folder, capsys):
    assert main(["speech", "--semantic", str(folder / "codec")]) == 2
    assert "holds a run of codec" in capsys.readouterr().err


def test_every_row_of_the_list_is_there():
    assert [row for row in ROWS if row.startswith("C")] == [f"C{number}" for number in range(1, 8)]


def test_reports_print_as_tables_and_markdown():
    figures = (
        Figure.of("a | b", Interval(0.5, 0.25, 0.75, 9)),
        Figure.computed("none", lambda: (_ for _ in ()).throw(EvaluationError("too few"))),
    )
    row = RowReport("C0", "A row", "over 0.4", figures, True, ("a note",))
    report = Report("speech", "tiny", "ab" * 32, {"codec": "cd" * 32}, "data", "a command", (row,))
    assert "a | b   0.500  0.250 .. 0.750  9" in report.text()
    assert "none        -  too few" in report.text()
    assert "| a \\| b | 0.500 | 0.250 .. 0.750 | 9 |" in report.markdown()
    assert json.loads(report.to_json())["rows"][0]["figures"][0]["high"] == 0.75
    assert torch.__version__ == report.versions["torch"]


def test_an_untrained_checkpoint_is_another_one_with_the_same_codec(folder):
    subject = from_checkpoint(str(folder / "speech"))
    random, again, other = untrained(subject), untrained(subject), untrained(subject, seed=1)
    assert random.sha256 == again.sha256 != other.sha256
    assert random.sha256 != subject.sha256
    for stage in STAGES:
        same = random.components[f"stage_{stage}"] == subject.components[f"stage_{stage}"]
        assert same == (stage == "fine")
    assert random.codec is subject.codec
    assert random.models.detector is None


def test_continuations_are_sampled_as_the_checkpoint_says_unless_told_otherwise():
    own = {stage: SamplingConfig(0.9, 5, 0.8) for stage in ("semantic", "coarse", "fine")}
    models = SimpleNamespace(info=SimpleNamespace(sampling=own))
    args = _parser().parse_args(["piano", "--checkpoint", "x"])
    assert _request(args, Subject("a run")).coarse == USUAL_SAMPLING["coarse"]
    assert _request(args, Subject("a checkpoint", models=models)).coarse == own["coarse"]
    args = _parser().parse_args(["piano", "--checkpoint", "x", "--temperatures", "0.1", "0.2", "0.3"])
    assert _request(args, Subject("a checkpoint", models=models)).coarse == SamplingConfig(0.2, 5, 0.8)


def test_a_continuation_makes_ten_seconds_with_its_prompt_unless_told_otherwise():
    def lengths(domain, *options):
        request = _request(_parser().parse_args([domain, "--checkpoint", "x", *options]), Subject("a run"))
        return request.prompt_s, request.continuation_s

    assert (lengths("speech"), lengths("piano")) == ((3.0, 7.0), (4.0, 6.0))
    assert lengths("speech", "--prompt-s", "2") == (2.0, 8.0)
    assert lengths("piano", "--prompt-s", "2", "--continuation-s", "5") == (2.0, 5.0)


def test_a_second_checkpoint_without_a_page_to_listen_to_is_refused(capsys):
    assert main(["speech", "--checkpoint", "none", "--against", "another"]) == 2
    assert "give --listening too" in capsys.readouterr().err
