"""A small recogniser of English speech: which words are heard, and where the phones of known words lie."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.corpus import pcm_hash
from audiolm.errors import EvaluationError
from audiolm.streams import Waveform

FRAME_S = 0.01  # of an alignment


@dataclass(frozen=True)
class Phone:
    """One of the 39 phones of the CMU dictionary, or a filler such as SIL, from `start_s` to `end_s`."""

    name: str
    start_s: float
    end_s: float

    @property
    def is_filler(self) -> bool:
        return self.name == "SIL" or self.name.startswith("+")


class Recogniser:
    """PocketSphinx (D. Huggins-Daines et al., 2006) with the American English models in its package: no network.

    Its answers are kept in the folder `work`, by the samples, the package's version and what it was taught of the
    words. They do not depend on what was heard before. Raises EvaluationError where the package cannot be imported.
    """

    def __init__(self, work: Path | None = None) -> None:
        try:
            import pocketsphinx
        except ImportError as error:
            raise EvaluationError(f"needs the package pocketsphinx (extra `eval`; {error})") from error
        from importlib.metadata import version

        self._decoder = pocketsphinx.Decoder
        self._taught = dict[str, str]()
        self.name = f"pocketsphinx {version('pocketsphinx')}"
        self._kept = Kept(None if work is None else work / f"{self.name.replace(' ', '-')}.jsonl")

    def words(self, waveform: Tensor) -> list[str]:
        """[T] at 16 kHz -> the words heard, in lower case; none where nothing is understood."""

        def hear() -> str:
            _process(self._listener, waveform)
            heard = self._listener.hyp()
            return "" if heard is None else heard.hypstr

        if not Waveform(waveform).int16().any():
            return []  # the decoder makes a word of digital silence, now this one and now that
        return self._kept.answer(f"words {_hash(waveform)}", hear).split()

    def knows(self, words: Iterable[str]) -> bool:
        """Whether its dictionary has all of them."""
        return all(self._aligner.lookup_word(word) is not None for word in words)

    def teach(self, pronunciations: Mapping[str, Sequence[str]]) -> None:
        """How words are pronounced that its dictionary lacks, in phones of the CMU dictionary; for alignments alone.

        Raises RuntimeError for a word that it has and for phones that it has not; those before it stay taught.
        """
        for word, phones in pronunciations.items():
            pronunciation = " ".join(phones)
            self._aligner.add_word(word, pronunciation, update=False)
            self._taught[word] = pronunciation

    def phones(self, waveform: Tensor, words: Sequence[str]) -> list[Phone]:
        """[T] at 16 kHz in which known `words` are spoken -> where their phones lie; none where they do not fit."""

        def align() -> list[tuple[str, int, int]]:
            try:
                self._aligner.set_align_text(" ".join(words))
                _process(self._aligner, waveform)
                self._aligner.set_alignment()
                _process(self._aligner, waveform)
                return phone_frames(self._aligner.get_alignment() or ())
            except RuntimeError:  # the words do not lead to the end of the sound
                return []

        taught = [f"({self._taught[word]})" for word in words if word in self._taught]
        key = " ".join(["phones", _hash(waveform), *words, *taught])
        found = self._kept.answer(key, align)
        return [Phone(name, start * FRAME_S, (start + length) * FRAME_S) for name, start, length in found]

    @cached_property
    def _listener(self) -> Any:
        return self._decoder(samprate=SAMPLE_RATE_HZ, loglevel="FATAL")

    @cached_property
    def _aligner(self) -> Any:
        """Without its search for a better path, whose words may be too short for their phones."""
        return self._decoder(samprate=SAMPLE_RATE_HZ, loglevel="FATAL", lm=None, bestpath=False)


class Kept:
    """Answers by key, kept in a file of JSON lines where there is one; a line cut off by a stopped command is lost."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._answers = path, dict[str, Any]()
        if path is None or not path.is_file():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                key, answer = json.loads(line)
            except ValueError:
                continue
            self._answers[key] = answer

    def answer(self, key: str, find: Callable[[], Any]) -> Any:
        if key not in self._answers:
            self._answers[key] = find()
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as lines:
                    lines.write("\n" + json.dumps([key, self._answers[key]]))
        return self._answers[key]


def normalised(text: str) -> list[str]:
    """Lower-case words of letters, digits and apostrophes; everything else parts words."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("\u2019", "'"))


def phone_frames(alignment: Iterable[Any]) -> list[tuple[str, int, int]]:
    """An alignment's words, each an iterable of phones -> (phone, first frame, number of frames), in order."""
    return [(phone.name, phone.start, phone.duration) for word in alignment for phone in word]


def _hash(waveform: Tensor) -> str:
    return pcm_hash(Waveform(waveform).int16().numpy())


def _process(decoder: Any, waveform: Tensor) -> None:
    """As one whole utterance, so that its level is normalised over itself and not over what came before."""
    decoder.start_utt()
    decoder.process_raw(Waveform(waveform).int16().numpy().astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
