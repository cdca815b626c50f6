"""The listening report from end to end, on checkpoints of random weights: whole, labelled, all in its folder."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest

from audiolm.checkpoints.registry import load
from audiolm.data.corpus import CorpusWriter, to_pcm
from audiolm.evaluation.__main__ import main
from audiolm.evaluation.faults import FAULTS
from audiolm.outputs import read_receipt
from tests.tiny import make_tiny_checkpoint

HOSTILE = 'a/<script>alert("x")</script> & b'


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """data/ of three recordings; checkpoints piano/, another/ and speech/."""
    root = tmp_path_factory.mktemp("listening")
    with CorpusWriter(root / "data") as writer:
        for index, group in enumerate((HOSTILE, "b", "c")):
            generator = np.random.default_rng(index)
            time = np.arange(48_000) / 16_000
            tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in generator.uniform(100, 2000, size=4))
            sound = 0.05 * tones * (1.0 + 0.8 * np.sin(2 * np.pi * 3 * time)) + 0.01 * generator.normal(size=len(time))
            writer.add(to_pcm(sound), id=f"{group}-{index}", group=group, split="test", source="s", licence="x")
    make_tiny_checkpoint(root / "piano", "piano")
    make_tiny_checkpoint(root / "another", "piano", seed=1)
    make_tiny_checkpoint(root / "speech", "speech")
    return root


def listen(root, out, domain="piano", *options):
    short = ["--prompt-s", "1", "--continuation-s", "1.2", "--data", str(root / "data")]
    return main([domain, "--checkpoint", str(root / domain), "--listening", str(out), *short, *options])


@pytest.fixture(scope="module")
def report(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    assert listen(root, out, "piano", "--against", str(root / "another")) == 0
    return out


class Links(HTMLParser):
    """What a page refers to."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href")]


def test_every_link_stays_in_the_folder_and_leads_to_a_file(report):
    text = (report / "index.html").read_text()
    links = [link for link in Links(text).found if not link.startswith("#")]
    assert len(links) > 3 * 8
    for link in links:
        assert not re.match(r"[a-z]+:|/|\.\.", link), link
        assert (report / unquote(link)).stat().st_size > 0
    assert "http" not in text.replace("http-equiv", "")


def test_the_page_says_what_was_measured_on_what(root, report):
    text = (report / "index.html").read_text()
    for said in (load(str(root / "piano")).info.sha256, load(str(root / "another")).info.sha256):
        assert said in text
    assert "3 continuations of piano prompts" in text
    assert "python -m audiolm.evaluation piano --checkpoint" in text
    assert re.search(r"<dt>date</dt><dd>\d{4}-\d\d-\d\dT", text)


def test_generated_sound_is_labelled_and_originals_are_not(report):
    figures = re.findall(r"<figcaption>.*?</figcaption>", (report / "index.html").read_text(), re.S)
    assert len(figures) == 9
    for figure in figures:
        assert ('class="badge"' in figure) == ("original" not in figure)


def test_names_from_outside_are_escaped(report):
    text = (report / "index.html").read_text()
    assert "<script>alert" not in text
    assert "a/&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; b" in text


def test_receipts_lie_beside_the_sounds_and_are_theirs(root, report):
    for kind, checkpoint in (("generated", "piano"), ("other", "another")):
        receipt = read_receipt(report / f"clips/02-{kind}.receipt.json")
        assert receipt.checkpoint_sha256 == load(str(root / checkpoint)).info.sha256
        assert receipt.request.seed == 1
    sounds = json.loads((report / "measures.json").read_text())["clips"][1]["tracks"]
    assert read_receipt(report / sounds[0]["sound"]) == read_receipt(report / "clips/02-generated.receipt.json")


def test_every_fault_is_measured_on_generated_sound_and_originals_alike(report):
    clips = json.loads((report / "measures.json").read_text())["clips"]
    assert [clip["group"] for clip in clips] == [HOSTILE, "b", "c"]
    for clip in clips:
        assert [track["kind"] for track in clip["tracks"]] == ["generated", "other", "codec", "recording"]
        for track in clip["tracks"]:
            assert {fault.name for fault in FAULTS} <= set(track["values"])
            assert set(track["flags"]) <= set(track["values"])


def test_speech_has_no_notes_and_no_key_and_kept_continuations_are_copied(root, tmp_path, capsys):
    options = ("--work", str(tmp_path / "kept"), "--items", "2")
    assert listen(root, tmp_path / "page", "speech", *options) == 0
    printed = capsys.readouterr().out
    assert "found in (2 clips)" in printed
    assert "C1" not in printed  # the report comes alone
    assert (tmp_path / "page/clips/02-generated.wav").is_file()
    assert not (tmp_path / "page/continuations").exists()
    values = json.loads((tmp_path / "page/measures.json").read_text())["clips"][0]["tracks"][0]["values"]
    assert not {"key", "noise between partials"} & set(values)


def test_a_checkpoint_of_the_other_domain_is_refused_beside(root, tmp_path, capsys):
    assert listen(root, tmp_path, "piano", "--against", str(root / "speech")) == 2
    assert "a checkpoint of speech, not of piano" in capsys.readouterr().err


def test_stretches_too_short_to_measure_are_refused(root, tmp_path, capsys):
    assert listen(root, tmp_path, "piano", "--continuation-s", "0.4") == 2
    assert "need 8000 samples" in capsys.readouterr().err
