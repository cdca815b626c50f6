"""Word errors, phones and voices, and the rows that set those of renderings and tokens beside each other."""

import sys
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from audiolm.audio.files import read_comment, write_wav
from audiolm.data.corpus import Corpus, CorpusWriter, to_pcm
from audiolm.data.recogniser import Kept, Phone, Recogniser, normalised, phone_frames
from audiolm.errors import EvaluationError
from audiolm.evaluation import phones, rows, voices, words
from audiolm.evaluation.holdout import HoldOut
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.phones import Spoken, phones_at, probe_figures
from audiolm.evaluation.revoicing import NUM_VOICES, revoicer
from audiolm.evaluation.subject import from_checkpoint
from audiolm.evaluation.voices import companion, similarity_figures
from audiolm.evaluation.words import ErrorCounts, reconstructed, transcribed_items, word_errors
from audiolm.request import ContinuationRequest
from audiolm.streams import Waveform
from tests.tiny import make_tiny_checkpoint

TRANSCRIPTS = ("THE CAT SAT", "DON'T GO", "A DOG", "RAIN IN SPAIN", None, "SNOW AND RAIN")


class Parrot:
    """A recogniser that hears two words in all that it has no answer for, and finds one phone in everything."""

    name = "parrot 1.0"
    answers: ClassVar[dict[bytes, list[str]]] = {}  # by samples

    def __init__(self, work=None):
        pass

    def words(self, waveform):
        return self.answers.get(waveform.numpy().tobytes(), ["the", "cat"])

    def knows(self, spoken):
        return "spain" not in spoken

    def phones(self, waveform, spoken):
        name = spoken[0][0].upper()
        return [Phone(name, 0.0, 0.6), Phone("SIL", 0.6, 0.8), Phone("T", 0.8, 5.0)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Six recordings of 1.2 s by three speakers, five of them with transcripts, and a tiny checkpoint."""
    root = tmp_path_factory.mktemp("words")
    with CorpusWriter(root / "corpus") as writer:
        for index, transcript in enumerate(TRANSCRIPTS):
            noise = np.random.default_rng(index).normal(size=19_200).cumsum() * 0.002
            pcm, group = to_pcm(np.sin(noise) * 0.3), f"voice-{index % 3}"
            writer.add(pcm, id=f"{group}/{index}", group=group, split="test", source="s", licence="x",
                       transcript=transcript)  # fmt: skip
    make_tiny_checkpoint(root / "speech")
    subject = from_checkpoint(str(root / "speech"))
    holdout = HoldOut(subject, Corpus(root / "corpus"))
    return Inputs("speech", subject, holdout, ContinuationRequest(), root / "work")


@pytest.fixture
def short(monkeypatch):
    """Items of a second are long enough, and the recogniser is a parrot."""
    for module in (words, voices):
        monkeypatch.setattr(module, "MIN_S", 1.0)
    for module in (words, voices, phones):
        monkeypatch.setattr(module, "Recogniser", Parrot)


@pytest.fixture
def heard(inputs, short, monkeypatch):
    """What the parrot hears of the five utterances' 13 words, another part of them in every rendering.

    All words of originals; all but the last through 4 levels, the first through 2; none in the first draw, all in the
    second, the first in the third.
    """
    answers = {}
    for item in transcribed_items(inputs, 10):
        spoken, original = normalised(item.transcript), inputs.holdout.waveform(item)
        answers[original.numpy().tobytes()] = spoken
        renderings = [reconstructed(inputs, original, 4), reconstructed(inputs, original, 2), *revoicer(inputs)(item)]
        for rendering, known in zip(renderings, (spoken[:-1], spoken[:1], [], spoken, spoken[:1]), strict=True):
            answers[rendering.numpy().tobytes()] = known
    assert len(answers) == 5 * 6
    monkeypatch.setattr(Parrot, "answers", answers)


def values(report):
    return {figure.name: figure.value for figure in report.figures}


# ---- word errors


def test_transcripts_are_read_as_plain_words():
    assert normalised("“Don’t”, he said -- TWICE.") == ["don't", "he", "said", "twice"]
    assert normalised("'Tis the dogs' 2nd_run") == ["tis", "the", "dogs", "2nd", "run"]
    assert normalised("") == []


@pytest.mark.parametrize(
    ("spoken", "heard", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a b c", "a b x c", 1),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("a b c d", "b c d e", 2),
        ("a", "x y z", 3),
    ],
)
def test_errors_are_the_fewest_substitutions_deletions_and_insertions(spoken, heard, errors):
    assert word_errors(spoken.split(), heard.split()) == errors


def test_the_rate_is_all_errors_over_all_words_and_not_a_mean_of_rates():
    counts = ErrorCounts(spoken=[1, 9], wrong=[1, 0])
    assert counts.rate.value == pytest.approx(0.1)
    assert counts.over(ErrorCounts([1, 9], [0, 1])).value == 0.0


def test_only_whole_utterances_with_transcripts_are_taken(inputs, short):
    assert [item.id for item in transcribed_items(inputs, 10)] == [
        "voice-0/0", "voice-1/1", "voice-2/2", "voice-0/3", "voice-2/5"
    ]  # fmt: skip
    assert [item.id for item in transcribed_items(inputs, 10, lambda spoken: "rain" in spoken)] == [
        "voice-0/3", "voice-2/5"
    ]  # fmt: skip


# ---- the recogniser


def test_a_missing_recogniser_is_the_row_s_reason(inputs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    for row in ("W", "P"):
        (figure,) = rows.measure(row, inputs).figures
        assert figure.value is None
        assert figure.reason.startswith("needs the package pocketsphinx")


def test_piano_has_no_words(inputs):
    with pytest.raises(EvaluationError, match="matter of speech"):
        transcribed_items(Inputs("piano", inputs.subject, inputs.holdout, inputs.request), 1)


def test_answers_are_kept_and_a_line_cut_off_is_not_believed(tmp_path):
    path, asked = tmp_path / "work" / "kept.jsonl", []
    find = lambda: asked.append(1) or "yes"  # noqa: E731
    assert Kept(path).answer("a", find) == Kept(path).answer("a", find) == "yes"
    with path.open("a") as lines:
        lines.write('\n["b", "n')
    assert Kept(path).answer("c", find) == "yes"
    assert [Kept(path).answer(key, find) for key in "abc"] == ["yes"] * 3
    assert len(asked) == 3


def test_silence_says_nothing(tmp_path):
    pytest.importorskip("pocketsphinx")
    recogniser = Recogniser(tmp_path)
    assert recogniser.words(torch.zeros(16_000)) == []
    assert recogniser.words(1e-6 * torch.ones(16_000)) == []  # less than a step of 16 bits
    assert recogniser.knows(["rain", "don't"])
    assert not recogniser.knows(["rain", "hippogriffin"])
    assert recogniser.phones(torch.zeros(800), ["much", "too", "long"]) == []
    recogniser.teach({"hippogriffin": ["HH", "IH", "P"]})
    assert recogniser.knows(["hippogriffin"])
    heard = recogniser.phones(torch.zeros(16_000), ["hippogriffin"])
    assert [phone.name for phone in heard] == ["HH", "IH", "P"]
    with pytest.raises(RuntimeError):
        recogniser.teach({"hippogriffin": ["R", "IH", "F"]})
    assert [phone.name for phone in recogniser.phones(torch.zeros(16_000), ["hippogriffin"])] == ["HH", "IH", "P"]
    other = Recogniser(tmp_path)
    other.teach({"hippogriffin": ["G", "R", "IH", "F"]})  # what is kept of the one is no answer of the other
    assert [phone.name for phone in other.phones(torch.zeros(16_000), ["hippogriffin"])] == ["G", "R", "IH", "F"]


# ---- phones


def test_phones_of_an_alignment_come_word_by_word_with_their_frames():
    class Entry:
        def __init__(self, name, start, duration):
            self.name, self.start, self.duration = name, start, duration

    alignment = [[Entry("SIL", 0, 5)], [Entry("HH", 5, 6), Entry("IY", 11, 7)]]
    assert phone_frames(alignment) == [("SIL", 0, 5), ("HH", 5, 6), ("IY", 11, 7)]


def test_a_position_has_the_phone_in_its_middle():
    found = phones_at([Phone("SIL", 0.0, 0.05), Phone("HH", 0.05, 0.1), Phone("IY", 0.1, 9.0)], 4)
    assert found == [None, "HH", "IY", "IY"]
    assert phones_at([Phone("IY", 0.0, 0.06), Phone("+NSN+", 0.06, 0.2)], 6) == ["IY", None, None, None, None, None]


def test_phone_probes_are_judged_on_other_speakers_with_intervals_over_utterances():
    told = {"A": [1.0, 0.0], "B": [0.0, 1.0]}

    def utterance(group):
        names = ["A", "B"] * 10
        clear = torch.tensor([told[name] for name in names])
        return Spoken(group, names, {"ids, semantic": clear, "ids, coarse": torch.zeros(20, 2)})

    figures, (gap,) = probe_figures([utterance(group) for group in ("x", "y", "x", "y")])
    assert [figure.value for figure in figures] == pytest.approx([1.0, 0.5, 0.5, 0.5])
    assert {figure.n for figure in figures} == {2}
    assert gap.low > 0.0


def test_row_p_sets_semantic_beside_coarse_tokens(inputs, short):
    report = rows.measure("P", inputs)
    found = values(report)
    assert {"probe on ids, semantic", "probe on vector, before k-means", "vector: semantic - coarse"} <= set(found)
    assert None not in found.values()
    assert "instants of 4 phones in 4 utterances" in report.notes[0]


# ---- words and voices


def test_row_w_counts_every_rendering(inputs, heard):
    report = rows.measure("W", inputs)
    found = values(report)
    assert found["word error, originals"] == 0.0
    assert found["word error, 4 levels"] == found["4 levels - originals"] == pytest.approx(5 / 13)
    assert found["word error, 2 levels"] == pytest.approx(8 / 13)
    assert found["word error, acoustic generation"] == pytest.approx(13 / 13)
    assert found["acoustic generation - 4 levels"] == pytest.approx(8 / 13)
    assert report.met is False
    assert "5 utterances" in report.notes[0]
    assert "13 words" in report.notes[0]


def test_a_silent_draw_loses_its_words_and_not_the_row(inputs, short, monkeypatch):
    item = transcribed_items(inputs, 1)[0]
    monkeypatch.setattr(words, "revoicer", lambda inputs: lambda one: [None if one.id == item.id else torch.ones(9)])
    report = rows.measure("W", inputs)
    # THE CAT SAT is three words, of which the parrot gets two right.
    assert values(report)["word error, acoustic generation"] == pytest.approx(13 / 13)
    assert "1 of 5 draws of acoustic generation are silent" in report.notes[-1]


def test_a_silent_item_and_a_silent_draw_are_no_sound(inputs, short, monkeypatch, tmp_path):
    item = transcribed_items(inputs, 1)[0]
    elsewhere = replace(inputs, work=tmp_path)
    monkeypatch.setattr(HoldOut, "waveform", lambda self, item, max_s=None: torch.zeros(19_200))
    assert revoicer(elsewhere)(item) == [None] * NUM_VOICES
    monkeypatch.undo()
    draws = revoicer(elsewhere)(item)
    path = next(tmp_path.rglob("*-1.wav"))
    write_wav(path, Waveform(torch.zeros(19_200)), read_comment(path))
    found = revoicer(elsewhere)(item)
    assert [draw is None for draw in draws] == [False] * 3
    assert [draw is None for draw in found] == [False, True, False]


def test_row_w_does_without_a_work_folder_and_says_what_is_missing(inputs, short):
    report = rows.measure("W", Inputs("speech", inputs.subject, inputs.holdout, inputs.request))
    assert report.figure("word error, originals").value is not None
    assert "give --work" in report.figure("word error, acoustic generation").reason
    assert report.met is None


def test_draws_are_made_once_and_kept_with_receipts(inputs, short, monkeypatch):
    item = transcribed_items(inputs, 1)[0]
    made = revoicer(inputs)(item)
    assert len(made) == NUM_VOICES
    assert not torch.equal(made[0], made[1])
    monkeypatch.setattr("audiolm.evaluation.revoicing._make", None)
    kept = revoicer(inputs)(item)
    assert all(torch.equal(one, other) for one, other in zip(made, kept, strict=True))


def test_a_companion_is_another_recording_of_the_speaker(inputs, short):
    first, last = inputs.holdout.corpus.items[0], inputs.holdout.corpus.items[5]
    assert companion(inputs.holdout, first).id == "voice-0/3"
    assert companion(inputs.holdout, last).id == "voice-2/2"


def test_voices_that_ignore_the_source_go_all_the_way_down():
    sources = np.eye(12, 24)
    draws = np.stack([np.eye(12, 24, k=12)] * 3, axis=1)
    found = {f.name: f.value for f in similarity_figures(sources, sources, draws, [str(n) for n in range(12)])}
    assert found[voices.WAY] == pytest.approx(1.0)
    assert found["cosine, between draws of one source"] == pytest.approx(1.0)
    assert found["own draw first among 10"] == 0.0
    assert found["same speaker's recording first among 10"] == 1.0
    kept = {
        f.name: f.value
        for f in similarity_figures(sources, sources, sources[:, None].repeat(3, 1), list("abcdefghijkl"))
    }
    assert kept[voices.WAY] == pytest.approx(0.0)
    assert kept["own draw first among 10"] == 1.0


def spectrum(waveform):
    bands = torch.fft.rfft(waveform).abs()[:1600].reshape(16, -1).mean(dim=1).numpy()
    return bands / np.linalg.norm(bands)


def test_row_v_leaves_out_utterances_with_a_silent_draw(inputs, short, monkeypatch):
    silent, whole = transcribed_items(inputs, 1)[0].id, [inputs.holdout.waveform(inputs.holdout.corpus.items[0])] * 3
    monkeypatch.setattr(voices, "speaker_encoder", lambda: spectrum)
    monkeypatch.setattr(voices, "revoicer", lambda _: lambda one: [*whole[:2], None] if one.id == silent else whole)
    report = rows.measure("V", inputs)
    assert report.figure("cosine, source and its draws").n == 4
    assert report.notes[-1] == "1 of 5 utterances left out: a draw of them is silent"
    monkeypatch.setattr(voices, "revoicer", lambda inputs: lambda one: [None] * 3)
    with pytest.raises(EvaluationError, match="two speakers"):
        voices.measure(inputs)


def test_row_v_sets_draws_beside_the_same_and_other_speakers(inputs, heard, monkeypatch):
    monkeypatch.setattr(voices, "speaker_encoder", lambda: spectrum)
    report = rows.measure("V", inputs)
    found = values(report)
    assert found["word error, reconstructions"] == pytest.approx(5 / 13)
    assert found["word error, draws"] == pytest.approx((13 + 0 + 8) / 3 / 13)
    assert found["word error, draws - reconstructions"] == pytest.approx(2 / 13)
    assert 0.0 < found["cosine, source and its draws"] <= 1.0
    assert "needs 9" in report.figure("own draw first among 10").reason
    assert "5 utterances of 3 speakers" in report.notes[0]
