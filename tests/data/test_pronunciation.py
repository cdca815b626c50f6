"""Words by rule: what espeak-ng writes becomes phones of the CMU dictionary."""

import pytest

from audiolm.data import espeak, pronunciation
from audiolm.data.phones import PHONES
from audiolm.data.pronunciation import cmu_phones, pronounced
from audiolm.errors import EvaluationError


@pytest.mark.parametrize(
    ("ipa", "expected"),
    [
        ("b_ˈʌ_f_ə_l_ˌoʊ_z\n", "B AH F AH L OW Z"),
        ("k_ˈɑːɹ_ɹ_ə_z", "K AA R AH Z"),  # one r, though two are written
        ("ɹ_ˈuː_m_m_eɪ_t", "R UW M M EY T"),
        ("n_ˈʌ_t_ʃ_ɛ_l", "N AH T SH EH L"),  # apart: neither "nutchell" nor "droying"
        ("d_ɹ_ˈɔː_ɪ_ŋ", "D R AO IH NG"),
        ("dʒ_ʌ_s_t_ˈɪ_n_iə_n", "JH AH S T IH N IY AH N"),
        ("f_ˈaɪɚ", "F AY ER"),
        ("b_ˈʌ_ʔ_n\u0329", "B AH T AH N"),
        ("m_ˈɛ_ʒ_ɚ", "M EH ZH ER"),
        ("b_ˈiː__ɪ_ŋ", "B IY IH NG"),
        ("ø_t", ""),  # a sign that English has not
        ("", ""),
    ],
)
def test_the_signs_of_a_word_become_its_phones(ipa, expected):
    assert cmu_phones(ipa) == expected.split()


def test_every_phone_that_can_be_said_is_one_of_the_labels():
    spoken = {phone for sign in pronunciation._PHONES for phone in cmu_phones(sign)}
    assert spoken == set(PHONES)


def test_words_are_left_out_where_no_rule_says_them(monkeypatch):
    monkeypatch.setattr(espeak.shutil, "which", lambda name: "/usr/bin/espeak-ng")
    monkeypatch.setattr(pronunciation, "_ipa", lambda word: {"rain": "ɹ_ˈeɪ_n", "øl": "ø_l"}[word])
    assert pronounced({"rain", "øl", "000", "東京"}) == {"rain": ["R", "EY", "N"]}


def test_a_word_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(espeak.shutil, "which", lambda name: "/bin/false")
    with pytest.raises(EvaluationError, match="'rain'"):
        pronounced({"rain"})


def test_without_the_program_nothing_is_pronounced(monkeypatch):
    monkeypatch.setattr(espeak.shutil, "which", lambda name: None)
    assert pronounced({"rain"}) == {}


def test_the_program_itself_is_understood():
    if not espeak.has_espeak():
        pytest.skip("espeak-ng is not installed")
    assert pronounced({"waistcoat", "buffaloes"}) == {
        "waistcoat": ["W", "EY", "S", "T", "K", "OW", "T"],
        "buffaloes": ["B", "AH", "F", "AH", "L", "OW", "Z"],
    }
