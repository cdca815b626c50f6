from __future__ import annotations

import pytest

from app.engine.line import Line
from audiolm.errors import BusyError


def served(line: Line) -> list[str]:
    return [line.serve() for _ in range(len(line))]


def test_one_visitor_is_served_first_come_first_served():
    line = Line(9)
    for ticket in "abc":
        line.join(ticket, "one")
    assert [line.ahead(ticket) for ticket in "abc"] == [0, 1, 2]
    assert served(line) == ["a", "b", "c"]


def test_a_visitor_with_many_runs_does_not_stand_before_one_with_a_single_run():
    line = Line(9)
    for ticket in ("a1", "a2", "a3"):
        line.join(ticket, "a")
    line.join("b1", "b")
    line.join("c1", "c")
    line.join("b2", "b")
    assert line.in_order() == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert line.ahead("a3") == 5
    assert served(line) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_what_is_told_of_the_order_is_the_order():
    line = Line(99)
    for number in range(20):
        line.join(f"{number}", str(number * number % 7))
        if number % 3 == 2:
            assert line.first() == line.serve()
    told = line.in_order()
    assert served(line) == told


def test_a_visitor_who_was_just_served_goes_behind_the_others():
    line = Line(9)
    line.join("a1", "a")
    line.join("b1", "b")
    assert line.serve() == "a1"
    line.join("a2", "a")
    assert served(line) == ["b1", "a2"]


def test_a_full_line_refuses_with_the_number_that_wait():
    line = Line(2)
    line.join("a", "x")
    line.join("b", "y")
    with pytest.raises(BusyError, match="2 runs are waiting already"):
        line.join("c", "z")
    line.put_back("again")  # never refused, and before all others
    assert served(line) == ["again", "a", "b"]


def test_who_leaves_is_never_served():
    line = Line(9)
    for ticket in ("a1", "a2", "b1"):
        line.join(ticket, ticket[0])
    assert line.leave("a1")
    assert not line.leave("a1")
    assert served(line) == ["a2", "b1"]
