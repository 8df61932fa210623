"""Settling: one link per pair, whatever order things happen in."""

from __future__ import annotations

import itertools

from irisd.link.settling import Settling, Step, Verdict

LOW, HIGH = b"\x01" * 16, b"\x02" * 16


def test_the_lower_id_decides() -> None:
    assert Settling(LOW).decides(HIGH) and not Settling(HIGH).decides(LOW)


def test_the_first_connection_is_taken_whoever_dialled() -> None:
    for dialled in (True, False):
        assert Settling(LOW).confirmed(HIGH, 1, dialled=dialled) == Verdict(Step.TAKE, 1)


def test_of_two_simultaneous_dials_the_deciders_own_survives() -> None:
    settling = Settling(LOW)
    settling.confirmed(HIGH, 1, dialled=False)
    assert settling.confirmed(HIGH, 2, dialled=True) == Verdict(Step.TAKE, 2, drop=1)
    assert settling.ended(HIGH, 1) is None  # the dropped one is gone: no news
    assert settling.confirmed(HIGH, 3, dialled=False) == Verdict(Step.REJECT)
    assert settling.came_up(HIGH, 2) and not settling.came_up(HIGH, 1)


def test_while_a_link_comes_up_the_others_first_dial_is_not_given_up_for_its_second() -> None:
    settling = Settling(LOW)
    settling.confirmed(HIGH, 1, dialled=False)
    assert settling.confirmed(HIGH, 2, dialled=False).step is Step.REJECT
    settling = Settling(LOW)
    settling.confirmed(HIGH, 1, dialled=True)
    assert settling.confirmed(HIGH, 2, dialled=True).step is Step.REJECT


def up() -> Settling:
    settling = Settling(LOW)
    settling.confirmed(HIGH, 1, dialled=True)
    settling.came_up(HIGH, 1)
    return settling


def test_a_later_dial_waits_for_a_survey() -> None:
    for dialled in (True, False):
        settling = up()
        assert settling.confirmed(HIGH, 2, dialled=dialled).step is Step.PROBE
        assert settling.confirmed(HIGH, 3, dialled=dialled).step is Step.REJECT  # one at a time
        assert settling.probed(HIGH, alive=True) == (2, Verdict(Step.REJECT))
        assert settling.confirmed(HIGH, 4, dialled=dialled).step is Step.PROBE
        assert settling.probed(HIGH, alive=False) == (4, Verdict(Step.TAKE, 2, drop=1))


def test_a_link_that_ends_during_the_survey_makes_room() -> None:
    settling = up()
    settling.confirmed(HIGH, 2, dialled=False)
    assert settling.ended(HIGH, 1) == (2, Verdict(Step.TAKE, 2))
    assert settling.probed(HIGH, alive=False) is None


def test_who_waits_may_give_up() -> None:
    settling = up()
    settling.confirmed(HIGH, 2, dialled=False)
    assert settling.ended(HIGH, 2) is None
    assert settling.probed(HIGH, alive=False) is None
    assert settling.ended(HIGH, 1) is None
    assert settling.confirmed(HIGH, 3, dialled=False) == Verdict(Step.TAKE, 2)


def test_news_of_strangers() -> None:
    settling = Settling(LOW)
    assert settling.ended(HIGH, 1) is None
    assert settling.probed(HIGH, alive=True) is None
    assert not settling.came_up(HIGH, 1)
    settling.confirmed(HIGH, 1, dialled=True)
    assert settling.ended(HIGH, 9) is None


def test_the_other_side_follows_the_highest_number() -> None:
    settling = Settling(HIGH)
    assert settling.decided(LOW, 1, 5, dialled=True) == Verdict(Step.TAKE, 5)
    assert settling.decided(LOW, 2, 4, dialled=False) == Verdict(Step.REJECT)  # an older decision, late
    assert settling.decided(LOW, 3, 5, dialled=False) == Verdict(Step.REJECT)
    assert settling.decided(LOW, 4, 6, dialled=False) == Verdict(Step.TAKE, 6, drop=1)
    settling.came_up(LOW, 4)
    assert settling.decided(LOW, 5, 7, dialled=False) == Verdict(Step.TAKE, 7, drop=4)


def test_pairs_are_apart() -> None:
    settling = Settling(LOW)
    settling.confirmed(HIGH, 1, dialled=True)
    assert settling.confirmed(b"\x03" * 16, 2, dialled=False) == Verdict(Step.TAKE, 2)


def test_every_order_of_two_simultaneous_dials_gives_the_same_link_on_both_sides() -> None:
    """Both connections confirmed at the decider in either order, its decisions read by the other in either order."""
    for first, second in itertools.permutations([("low", True), ("high", False)]):
        low = Settling(LOW)
        decisions = []
        for number, (_, dialled) in enumerate((first, second), start=1):
            verdict = low.confirmed(HIGH, number, dialled=dialled)
            decisions.append((number, verdict))
        taken = [(number, verdict) for number, verdict in decisions if verdict.step is Step.TAKE]
        kept = taken[-1][0]
        assert (first, second)[kept - 1][0] == "low"
        for order in itertools.permutations(taken):
            high = Settling(HIGH)
            link = None
            for number, verdict in order:
                answer = high.decided(LOW, number, verdict.generation, dialled=False)
                link = number if answer.step is Step.TAKE else link
            assert link == kept
