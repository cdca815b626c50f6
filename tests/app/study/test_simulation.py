"""Five hundred simulated participants, 30 % of whom leave somewhere: acceptance S5, and what the results say of it."""

from __future__ import annotations

import heapq
import random
import secrets
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from app.study import protocol
from app.study.analysis import analyse
from app.study.definition import AB, Checks, Plan
from app.study.errors import LapsedError, StudyFullError
from app.study.store import Store
from tests.app.study.studies import Clock, make_study, payload

ARRIVALS, DROP_OUT = 500, 0.3
BETWEEN_ARRIVALS_S, STEP_S = 20.0, 15.0  # so that a handful of people take part at a time


@dataclass(order=True)
class Visit:
    """What happens next: someone arrives (no token), or gives the next answer. `stays` more answers before leaving."""

    at_s: float
    number: int
    token: str = ""
    stays: int = 10_000
    returns: bool = False  # comes back after an hour
    tries: int = 0


def simulate(store: Store, clock: Clock, study, seed: int) -> Counter:
    """Everyone arrives, answers at leisure, and is done or gone. Returns how often each came to be.

    Who finds no place comes again a quarter of an hour later, up to three times.
    """
    dice, ends = random.Random(seed), Counter()
    visits = [Visit(number * BETWEEN_ARRIVALS_S, number) for number in range(ARRIVALS)]
    began_s = clock.now_s
    most = [0] * protocol.num_cells(study)
    while visits:
        visit = heapq.heappop(visits)
        clock.now_s = began_s + visit.at_s
        try:
            following = step(store, study, visit, dice)
        except (StudyFullError, LapsedError) as error:
            ends[type(error).__name__] += 1
            if not visit.token and visit.tries < 3:
                heapq.heappush(visits, replace(visit, at_s=visit.at_s + 900.0, tries=visit.tries + 1))
            continue
        if following is None:
            ends["complete"] += 1
            most = [max(pair) for pair in zip(most, completed(store, study), strict=True)]
        elif following.stays < 0:
            ends["left"] += 1
            if visit.returns:
                heapq.heappush(visits, Visit(visit.at_s + 3600.0, visit.number, visit.token))
        else:
            heapq.heappush(visits, following)
    assert all(one <= quota for one, quota in zip(most, protocol.quotas(study), strict=True))
    return ends


def step(store: Store, study, visit: Visit, dice: random.Random) -> Visit | None:
    """None once the code is given."""
    pause_s = dice.expovariate(1.0 / STEP_S)
    if not visit.token:
        token = store.consent(study.id, {"PROLIFIC_PID": f"person {visit.number}"}, agreed=True).token
        leaves = dice.random() < DROP_OUT
        stays = dice.randrange(study.plan.trials_per_session + 1) if leaves else 10_000
        return Visit(visit.at_s + pause_s, visit.number, token, stays, leaves and dice.random() < 0.1)
    view = store.next_trial(visit.token)
    if view is None:
        store.finish(visit.token)
        return None
    store.answer(visit.token, view.key, payload(view), secrets.token_hex(8))
    return Visit(visit.at_s + pause_s, visit.number, visit.token, visit.stays - 1, visit.returns)


def completed(store: Store, study) -> list[int]:
    with store._database.reading() as db:
        found = db.execute("SELECT cell, count(*) FROM sessions WHERE state = 'complete' GROUP BY cell").fetchall()
    counts = {row[0]: row[1] for row in found}
    return [counts.get(cell, 0) for cell in range(protocol.num_cells(study))]


@pytest.mark.parametrize(("kind", "target"), [("real_or_synthetic", 301), (AB, 300)])
def test_completed_sessions_are_balanced_within_one_at_30_percent_drop_out(store, clock, kind, target):
    plan = Plan(target_sessions=target, trials_per_session=4, idle_minutes=10)
    study, _ = make_study(kind, items=12, plan=plan, checks=Checks(must_play=0.0))
    store.create_study(study)
    ends = simulate(store, clock, study, seed=4)
    assert protocol.num_cells(study) == 6
    assert 0.2 < ends["left"] / (ends["left"] + ends["complete"]) < 0.4
    assert ends["complete"] == target  # the drop-outs' places were filled
    by_cell = completed(store, study)
    assert max(by_cell) - min(by_cell) <= 1
    counts = analyse(store.results(study.id), with_mixed=False).counts
    assert (counts.complete, counts.by_cell, counts.spread) == (target, tuple(by_cell), max(by_cell) - min(by_cell))
    assert counts.consented == counts.complete + counts.lapsed + counts.running
    assert sum(counts.drop_out_by_step) == counts.lapsed + counts.running


def test_a_study_that_is_stopped_midway_is_balanced_too(store, clock):
    """With one participant at a time nothing has to be waited for: within one after every completed session."""
    study, _ = make_study(items=6, plan=Plan(target_sessions=200, trials_per_session=2, idle_minutes=1))
    store.create_study(study)
    dice = random.Random(5)
    for number in range(60):
        clock.now_s += 120.0
        token = store.consent(study.id, {"PROLIFIC_PID": f"person {number}"}, agreed=True).token
        while dice.random() > DROP_OUT / 3 and (view := store.next_trial(token)) is not None:
            store.answer(token, view.key, payload(view), secrets.token_hex(8))
        if store.session(token).done == store.session(token).total:
            store.finish(token)
        by_cell = completed(store, study)
        assert max(by_cell) - min(by_cell) <= 1
    assert 30 < sum(by_cell) < 55
