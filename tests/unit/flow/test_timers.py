from __future__ import annotations

import math
from random import Random

from irisd.flow import Timers
from irisd.flow.timers import SLACK, TICK


def test_fires_once_at_its_time():
    timers = Timers()
    timers.add("a", 1.0)
    assert timers.next_deadline() == 1.0
    assert timers.due(0.999) == []
    assert timers.due(1.0) == ["a"]
    assert timers.due(5.0) == []
    assert (len(timers), timers.next_deadline()) == (0, None)


def test_never_early_and_at_most_a_tick_late():
    random = Random(1)
    timers = Timers()
    deadlines = {n: random.uniform(0, 10) for n in range(500)}
    for thing, deadline in deadlines.items():
        timers.add(thing, deadline)
    fired = 0
    while (now := timers.next_deadline()) is not None:
        for fired_thing in timers.due(now):
            assert isinstance(fired_thing, int)
            assert deadlines[fired_thing] - 1e-9 <= now <= deadlines[fired_thing] + TICK + 1e-9
            fired += 1
    assert fired == 500


def test_a_thing_has_one_deadline():
    timers = Timers()
    timers.add("a", 1.0)
    timers.add("a", 3.0)
    assert len(timers) == 1
    assert timers.due(2.0) == []
    assert timers.due(3.0) == ["a"]


def test_removed_things_do_not_fire_and_unknown_ones_are_ordinary():
    timers = Timers()
    timers.add("a", 1.0)
    timers.add("b", 1.0)
    timers.remove("a")
    timers.remove("a")
    timers.remove("never")
    assert timers.due(1.0) == ["b"]
    timers.remove("b")
    assert timers.next_deadline() is None


def test_in_order_of_ticks():
    timers = Timers()
    for thing, deadline in (("late", 3.0), ("early", 1.0), ("same", 1.0), ("middle", 2.0)):
        timers.add(thing, deadline)
    assert timers.due(10.0) == ["early", "same", "middle", "late"]


def test_a_deadline_that_has_passed_fires_at_once():
    timers = Timers()
    timers.add("a", 1.0)
    timers.due(5.0)
    timers.add("b", 2.0)
    assert timers.next_deadline() == 2.0
    assert timers.due(5.0) == ["b"]


def test_far_deadlines_leave_nothing_behind():
    """Calls whose remaining time is drawn from 49 days and that are answered at once: no tick may stay."""
    timers = Timers()
    timers.add("stays", 7.0)
    for n in range(10 * SLACK):
        timers.add(n, 1000.0 + n)
        timers.remove(n)
        assert len(timers._ticks) == len(timers._heap) <= SLACK + 3
    assert timers.next_deadline() == 7.0
    assert timers.due(7.0) == ["stays"]


def test_sweeping_keeps_what_is_due():
    random = Random(2)
    timers = Timers()
    kept: dict[int, float] = {}
    for n in range(5 * SLACK):
        deadline = random.uniform(0, 1e6)
        timers.add(n, deadline)
        if n % 10:
            timers.remove(n)
        else:
            kept[n] = math.ceil(deadline / TICK)
    assert timers.due(2e6) == sorted(kept, key=lambda n: (kept[n], n))
