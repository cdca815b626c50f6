from __future__ import annotations

import math

import pytest

from app.guard import RUNS, Guard, GuardedRun, GuardedService
from app.limits import EXPECTED_S, MAX_EXPECTED, Admission, Allowance, RunLimitError, WorkLimits, spoken
from app.metrics import Metrics
from app.results import Loading, Waiting
from app.service import Service
from app.uploads import OVERHEAD_BYTES, Uploads
from app.visitors import Visitor
from audiolm.errors import AudioFormatError, BusyError
from audiolm.events import Progress

ONE, OTHER = Visitor("one", "here"), Visitor("other", "here")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admission(clock: Clock, **limits) -> Admission:
    return Admission(WorkLimits(**limits), clock)


def test_the_line_is_bounded_and_the_refusal_says_when_to_come_again(clock):
    line = admission(clock, max_runs=2, max_runs_of_visitor=2)
    line.enter(ONE)
    line.enter(ONE)
    with pytest.raises(BusyError, match=r"2 runs are under way or waiting.*try again in about 30 s"):
        line.enter(OTHER)
    clock.now += 100
    line.leave(ONE, completed=True)
    line.enter(OTHER)
    with pytest.raises(BusyError, match="try again in about 4 minutes"):  # at 100 s a run
        line.enter(ONE)


def test_a_rush_is_bounded_before_it_reaches_the_line(clock):
    line = admission(clock, max_runs=6)
    for _ in range(6):
        line.expect(ONE)
    with pytest.raises(BusyError, match=r"6 runs are under way or waiting.*try again in about"):
        line.expect(OTHER)
    for _ in range(6):
        line.enter(ONE)  # those that were let in
    for _ in range(MAX_EXPECTED):
        line.expect(OTHER)  # a few more may be refused where it says so best
    with pytest.raises(BusyError, match="10 runs are under way"):
        line.expect(OTHER)
    with pytest.raises(BusyError):
        line.enter(OTHER)  # is refused, so no longer expected
    line.expect(OTHER)
    with pytest.raises(BusyError):
        line.expect(OTHER)
    clock.now += EXPECTED_S  # what never asked for its place is forgotten
    line.expect(OTHER)


def test_requests_that_never_ask_for_a_place_shut_out_their_own_address_alone(clock):
    line = admission(clock, max_runs=8, max_runs_of_address=6)
    for _ in range(6):
        line.expect(ONE)
    with pytest.raises(BusyError, match="at most 6 runs from your address"):
        line.expect(OTHER)  # another cookie, the same address
    line.expect(Visitor("third", "elsewhere"))


def test_one_visitor_cannot_take_the_whole_line(clock):
    line = admission(clock, max_runs=9, max_runs_of_visitor=1)
    line.enter(ONE)
    with pytest.raises(BusyError, match="at most 1 runs of yours"):
        line.enter(ONE)
    line.enter(OTHER)
    line.leave(ONE, completed=False)
    line.enter(ONE)


def test_runs_that_were_refused_are_not_counted_as_begun(clock):
    line = admission(clock, max_runs=1, per_visitor=2)
    line.enter(ONE)
    for _ in range(5):
        with pytest.raises(BusyError, match="under way"):
            line.enter(ONE)
    line.leave(ONE, completed=True)
    line.enter(ONE)


@pytest.mark.parametrize(("share", "second"), [("per_visitor", ONE), ("per_address", OTHER)])
def test_shares_hold_for_the_visitor_and_for_the_address(clock, share, second):
    line = admission(clock, **{share: 1})
    line.enter(ONE)
    line.leave(ONE, completed=True)
    clock.now += 400
    with pytest.raises(BusyError, match=r"at most 1 runs.*in 10 minutes.*again in about 4 minutes"):
        line.enter(second)
    clock.now += 201
    line.enter(second)


def test_a_new_cookie_does_not_get_around_the_address(clock):
    line = admission(clock, per_visitor=1, per_address=3)
    for name in "abc":
        line.enter(Visitor(name, "here"))
    with pytest.raises(BusyError):
        line.enter(Visitor("d", "here"))
    line.enter(Visitor("d", "elsewhere"))


def test_one_address_with_ever_new_cookies_cannot_take_the_whole_line(clock):
    line = admission(clock, max_runs=4, max_runs_of_address=3)
    for name in "abc":
        line.enter(Visitor(name, "here"))
    with pytest.raises(BusyError, match=r"at most 3 runs from your address .*try again in about"):
        line.enter(Visitor("d", "here"))
    line.enter(Visitor("d", "elsewhere"))
    line.leave(Visitor("a", "here"), completed=True)
    line.enter(Visitor("e", "here"))
    for name, where in (("b", "here"), ("c", "here"), ("d", "elsewhere"), ("e", "here")):
        line.leave(Visitor(name, where), completed=True)
    assert (line.num_in_line, line._in_line_by_address) == (0, {})


def test_a_closed_line_refuses_with_its_reason(clock):
    line = admission(clock)
    line.close("the server is being restarted")
    with pytest.raises(BusyError, match="restarted"):
        line.enter(ONE)


def test_an_allowance_frees_up_as_time_goes_by(clock):
    share = Allowance(10, 60, clock)
    share.take("a", 6)
    clock.now += 30
    share.take("a", 4)
    assert share.wait_s("a", 6) == 30
    assert share.wait_s("a", 7) == 60
    assert share.wait_s("a", 11) == math.inf
    assert share.wait_s("b", 10) == 0


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "5 s"), (11, "15 s"), (90, "90 s"), (91, "2 minutes"), (121, "3 m")]
)
def test_waits_are_never_said_to_be_shorter_than_they_are(seconds, words):
    assert spoken(seconds).startswith(f"about {words}")


def guarded(guard: Guard, events, visitor: Visitor = ONE) -> GuardedRun:
    return GuardedRun("detect", guard, visitor, lambda: iter(events))


def test_a_run_gives_its_place_back_however_it_ends():
    def failing():
        yield Loading("x")
        raise AudioFormatError("not audio")

    def broken():
        raise AudioFormatError("not even begun")

    guard = Guard(Admission(WorkLimits(max_runs=1)), Metrics())
    assert list(guarded(guard, [Loading("x"), "the result"]))[-1] == "the result"
    with pytest.raises(AudioFormatError):
        list(guarded(guard, failing()))
    with pytest.raises(AudioFormatError):
        GuardedRun("detect", guard, ONE, broken)
    stopped = guarded(guard, [Loading("x"), "never seen"])
    next(stopped)
    stopped.close()
    guarded(guard, []).close()
    assert guard.admission.num_in_line == 0
    text = guard.metrics.text()
    for outcome, count in (("done", 1), ("refused", 1), ("stopped", 3)):
        assert f'audiolm_runs_total{{kind="detect",outcome="{outcome}"}} {count}' in text


def test_nothing_that_only_says_how_it_goes_comes_after_the_result():
    guard = Guard(Admission(WorkLimits()), Metrics())
    events = [Loading("x"), Waiting(0, 1.0), "the result", Waiting(0, 2.0), Waiting(0, 3.0)]
    assert list(guarded(guard, events)) == events[:3]
    assert guard.admission.num_in_line == 0


def test_a_run_that_takes_too_long_is_ended_but_waiting_does_not_count(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("app.guard.time.monotonic", clock)
    guard = Guard(Admission(WorkLimits(max_run_s=60)), Metrics())

    def events():
        for _ in range(10):
            clock.now += 100
            yield Waiting(1, 0.0)
        yield Loading("x")
        while True:
            clock.now += 7
            yield Progress("semantic", 1, 2, 0.0)

    seen = []
    with pytest.raises(RunLimitError, match="at most 60 s"):
        seen.extend(guarded(guard, events()))
    assert guard.admission.num_in_line == 0


def test_runs_that_go_on_are_told_when_the_server_stops():
    guard = Guard(Admission(WorkLimits()), Metrics())
    run = guarded(guard, [Loading("x"), Waiting(0, 1.0), "never"])
    next(run)
    guard.stop("the server is being restarted")
    with pytest.raises(BusyError, match="restarted"):
        next(run)
    assert guard.admission.num_in_line == 0


def test_every_run_of_the_service_passes_the_guard(service):
    own = {name for name, method in vars(Service).items() if "Events" in str(getattr(method, "__annotations__", {}))}
    assert {name for name in own if not name.startswith("_")} == set(RUNS)
    guard = Guard(Admission(WorkLimits()), Metrics())
    guard.admission.close("closed")
    proxy = GuardedService(service, guard, lambda: ONE)
    assert proxy.offer is service.offer
    for name in RUNS:
        with pytest.raises(BusyError):
            getattr(proxy, name)(None)
    assert "audiolm_refused_total 8" in guard.metrics.text()


def test_stages_are_timed_and_named(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("app.guard.time.monotonic", clock)
    guard = Guard(Admission(WorkLimits()), Metrics())

    def events():
        clock.now += 3
        yield Loading("x")
        for stage, seconds in (("semantic", 2), ("semantic", 2), ("coarse", 20)):
            clock.now += 1
            yield Progress(stage, 0, 1, 0.0)
            clock.now += seconds
        yield "done"

    list(guarded(guard, events()))
    text = guard.metrics.text()
    assert 'audiolm_stage_seconds_sum{stage="semantic"} 6' in text
    assert 'audiolm_stage_seconds_bucket{stage="coarse",le="10"} 0' in text
    assert 'audiolm_stage_seconds_bucket{stage="coarse",le="30"} 1' in text
    assert "audiolm_wait_seconds_sum 3" in text


def test_uploads_are_bounded_for_an_address_and_for_all_together():
    uploads = Uploads(100, OVERHEAD_BYTES * 3, 0, lambda: 0)
    assert "at most" in uploads.refusal("a", 101 + OVERHEAD_BYTES)
    assert uploads.take("a", OVERHEAD_BYTES * 3 - 1) == ""
    assert "from you in an hour" in uploads.take("a", 1)
    assert uploads.refusal("b", 100) == ""
    assert "full" in Uploads(100, 0, 1000, lambda: 950).refusal("a", 100)


def test_logins_cannot_be_tried_for_ever():
    uploads = Uploads(100, 0, 0, lambda: 0)
    assert [uploads.may_try_to_log_in("a") for _ in range(11)] == [True] * 10 + [False]
    assert uploads.may_try_to_log_in("b")
