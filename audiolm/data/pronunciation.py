"""How English words are pronounced that no dictionary has: names, above all; by the rules of espeak-ng."""

from __future__ import annotations

import re
from collections.abc import Collection

from audiolm.data.espeak import has_espeak, run_espeak

_VOICE = "en-us"
_WORD = re.compile(r"[a-zà-öø-ÿ']+")
_SEPARATORS = re.compile(r"[_\s]+")
_MARKS = dict.fromkeys(map(ord, "ˈˌː\u200d"))  # stress, length and ties say nothing of which phone it is
# espeak-ng's IPA for American English -> phones of the CMU dictionary; of signs between separators the longest.
# fmt: off
_PHONES = {
    "i": "IY", "ɪ": "IH", "ᵻ": "IH", "ɛ": "EH", "e": "EH", "æ": "AE", "a": "AE", "ɑ": "AA", "ɔ": "AO", "o": "AO",
    "ʊ": "UH", "u": "UW", "ʌ": "AH", "ə": "AH", "ɐ": "AH", "ɚ": "ER", "ɜ": "ER", "ɝ": "ER",
    "eɪ": "EY", "aɪ": "AY", "ɔɪ": "OY", "aʊ": "AW", "oʊ": "OW", "aɪɚ": "AY ER", "aɪə": "AY AH",
    "p": "P", "b": "B", "t": "T", "ɾ": "T", "ʔ": "T", "d": "D", "k": "K", "ɡ": "G", "x": "K", "tʃ": "CH", "dʒ": "JH",
    "f": "F", "v": "V", "θ": "TH", "ð": "DH", "s": "S", "z": "Z", "ʃ": "SH", "ʒ": "ZH", "h": "HH",
    "m": "M", "n": "N", "ŋ": "NG", "l": "L", "ɹ": "R", "r": "R", "j": "Y", "w": "W",
    "m\u0329": "AH M", "n\u0329": "AH N", "l\u0329": "AH L",
}
# fmt: on
_LONGEST = max(map(len, _PHONES))


def pronounced(words: Collection[str]) -> dict[str, list[str]]:
    """Lower-case words -> their phones, names of the CMU dictionary, for all that the rules can say: what is written
    in other than Latin letters has none, and Roman numerals are read as numbers.

    Empty where espeak-ng is not installed. Raises EvaluationError where it fails.
    """
    if not has_espeak():
        return {}
    found = {word: cmu_phones(_ipa(word)) for word in sorted(words) if _WORD.fullmatch(word)}
    return {word: phones for word, phones in found.items() if phones}


def cmu_phones(ipa: str) -> list[str]:
    """International phonetic alphabet, `_` between phones -> phones of the CMU dictionary; an r between two vowels,
    which espeak-ng writes to either side, counts once. None where a sign is not English.
    """
    phones: list[str] = []
    for segment in _SEPARATORS.split(ipa.translate(_MARKS)):
        left = segment
        while left:
            sign = next((left[:length] for length in range(_LONGEST, 0, -1) if left[:length] in _PHONES), None)
            if sign is None:
                return []
            phones += _PHONES[sign].split()
            left = left[len(sign) :]
    return [phone for phone, before in zip(phones, ["", *phones], strict=False) if (before, phone) != ("R", "R")]


def _ipa(word: str) -> str:
    return run_espeak("-v", _VOICE, "-q", "--ipa", "--sep=_", "--", word)
