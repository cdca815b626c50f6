from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from app.study import protocol
from app.study.definition import AB, ABX, MOS, MUSHRA, REAL_OR_SYNTHETIC, SCORED, Plan
from tests.app.study.studies import make_study

ROOT = Path(__file__).resolve().parents[3]
KINDS = (REAL_OR_SYNTHETIC, AB, ABX, MOS, MUSHRA)


def scored(study, key, cell):
    return [planned for planned in protocol.order(study, key, cell) if planned.role == SCORED]


@pytest.mark.parametrize("kind", KINDS)
def test_all_cells_together_hear_everything_equally_often_on_every_side(kind):
    plan = Plan(trials_per_session=3, one_version=kind != MUSHRA)
    study, _ = make_study(kind, items=6, plan=plan)
    heard = Counter()
    for cell in range(protocol.num_cells(study)):
        for planned in scored(study, "key", cell):
            heard[planned.trial, planned.side, planned.clips if kind == ABX else ()] += 1
    assert {trial for trial, _, _ in heard} == {trial.id for trial in study.of_role(SCORED)}
    assert len(set(heard.values())) == 1
    assert len(heard) == len(study.of_role(SCORED)) * {AB: 2, ABX: 4}.get(kind, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_hears_one_version_of_an_item_and_no_more_trials_than_planned(kind):
    study, _ = make_study(kind, items=7, plan=Plan(trials_per_session=3))
    for cell in range(protocol.num_cells(study)):
        items = [study.clip(planned.clips[0]).item for planned in scored(study, "key", cell)]
        assert 2 <= len(items) <= 3
        assert len(set(items)) == len(items)


def test_conditions_are_balanced_within_a_session():
    study, _ = make_study(items=10)
    for cell in range(protocol.num_cells(study)):
        generated = sum(study.clip(planned.clips[0]).generated for planned in scored(study, "key", cell))
        assert generated == 5


def test_abx_is_right_about_x():
    study, _ = make_study(ABX, items=8)
    for cell in range(protocol.num_cells(study)):
        for planned in scored(study, "key", cell):
            first, second, x = (study.clip(clip).condition for clip in planned.clips)
            assert first != second
            assert planned.side == ("x=a" if x == first else "x=b")
            assert len(set(planned.clips)) == 3  # X is never served as the file of A or of B


def test_the_order_follows_from_seed_key_and_cell_alone():
    study, _ = make_study(with_checks=True)
    again, _ = make_study(with_checks=True)
    assert protocol.order(study, "key", 1) == protocol.order(again, "key", 1)
    assert protocol.order(study, "key", 1) != protocol.order(study, "other", 1)
    reseeded, _ = make_study(with_checks=True, seed=8)
    trials = [planned.trial for planned in protocol.order(study, "key", 1)]
    assert trials != [planned.trial for planned in protocol.order(reseeded, "key", 1)]


def test_the_order_is_the_same_in_another_process():
    code = (
        "from app.study import protocol; from tests.app.study.studies import make_study;"
        "print([p.trial for p in protocol.order(make_study(with_checks=True)[0], 'key', 1)])"
    )
    study, _ = make_study(with_checks=True)
    environment = {"PYTHONHASHSEED": "5"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == str([planned.trial for planned in protocol.order(study, "key", 1)])


def test_screening_comes_first_and_checks_lie_between_scored_trials():
    study, _ = make_study(items=12, with_checks=True)
    places = Counter()
    for number in range(40):
        roles = [planned.role for planned in protocol.order(study, f"key {number}", number % 2)]
        assert roles[:9] == ["level", *["headphones"] * 6, *["practice"] * 2]
        assert Counter(roles[9:]) == {"scored": 12, "attention": 1, "trap": 1}
        assert roles[9] == "scored"
        places[roles.index("trap")] += 1
    assert len(places) > 6  # nobody can know where the trap is


def test_orders_differ_between_participants_in_every_place():
    study, _ = make_study(items=6)
    first = Counter(scored(study, f"key {number}", 0)[0].trial for number in range(600))
    assert len(first) == 6
    assert max(first.values()) < 150  # 100 expected, 5 standard deviations


def test_mushra_stimuli_are_shuffled_for_each_participant():
    study, _ = make_study(MUSHRA, items=1)
    orders = {scored(study, f"key {number}", 0)[0].clips for number in range(60)}
    assert len(orders) == 6


def test_quotas_add_up_to_the_target_and_differ_by_one_at_most():
    study, _ = make_study(ABX, items=6, plan=Plan(target_sessions=26, trials_per_session=2))
    quotas = protocol.quotas(study)
    assert len(quotas) == protocol.num_cells(study) == 12
    assert sum(quotas) == 26
    assert max(quotas) - min(quotas) == 1


def test_a_cell_that_the_study_does_not_have_is_refused():
    study, _ = make_study()
    with pytest.raises(ValueError, match=r"cell must be 0\.\.1, found 2"):
        protocol.order(study, "key", 2)


def test_a_place_goes_to_the_emptiest_cell_that_has_one():
    assert protocol.choose_cell((2, 2), (0, 1), (0, 0), "key") == 0
    assert protocol.choose_cell((2, 2), (0, 1), (1, 0), "key") == 0  # as many sessions, fewer completed
    assert protocol.choose_cell((2, 2), (2, 1), (0, 0), "key") == 1
    assert protocol.choose_cell((2, 2), (2, 1), (0, 1), "key") is None
