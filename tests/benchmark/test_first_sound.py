from __future__ import annotations

import pytest

from audiolm.benchmark.first_sound import borders


def received(starts: list[float], *chunks: list[float]) -> dict:
    played = [{"startS": start, "samples": len(chunk)} for start, chunk in zip(starts, chunks, strict=True)]
    return {"state": {"played": played, "gaps": 0}, "fine": list(chunks)}


def test_chunks_that_follow_each_other_have_no_gap_and_no_larger_step_at_the_border():
    found = borders(received([0.0, 3 / 16_000], [0.0, 0.1, 0.2], [0.25, 0.3]))
    assert found["border_gap"] == pytest.approx(0.0, abs=1e-9)
    assert found["border_step"] == pytest.approx(0.5)


def test_a_silence_between_chunks_and_a_click_are_seen():
    found = borders(received([0.0, 5 / 16_000], [0.0, 0.1, 0.2], [0.9, 0.9]))
    assert found["border_gap"] == pytest.approx(2.0)
    assert found["border_step"] == pytest.approx(7.0)
