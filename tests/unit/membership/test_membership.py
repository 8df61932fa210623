"""Verdicts of one node: what it sees is made by hand, what it does is looked at."""

from __future__ import annotations

import pytest

from irisd.effects import Cause
from irisd.membership import Verdict
from irisd.membership.rounds import Beat, encode_answer
from irisd.membership.suspicion import HELPERS, MOST
from irisd.model import NodeId, State
from irisd.wire.views import Belief, Saying
from tests.unit.membership.ground import START, Watcher, id_of, record_of

A, B, C = id_of(2), id_of(3), id_of(4)


def watcher(peers: int = 3, *, dialled: bool = True) -> Watcher:
    """A node linked with 2, 3, 4 and so on, in whose first round all was well."""
    one = Watcher()
    for number in range(2, 2 + peers):
        one.link(number, dialled=dialled)
    one.breathe()
    one.wait(1.5)
    one.port.changes.clear()
    one.port.told.clear()
    return one


def said(node: NodeId, saying: int, *, incarnation: int = 1, age: float = 0.0) -> Belief:
    return Belief(node, incarnation, saying, age)


def asked(one: Watcher, node: NodeId) -> set[NodeId]:
    return {to for to, saying in one.port.told_about(node) if saying is Saying.ASK}


# -- silence


def test_calm_is_calm():
    one = watcher()
    one.wait(600.0)
    assert (one.port.changes, one.port.told, one.port.unlinked) == ([], [], [])
    assert one.m.health.score == 0


@pytest.mark.parametrize("dialled", [True, False])
def test_after_a_missed_round_it_is_suspect_and_others_are_asked(dialled: bool):
    one = watcher(8, dialled=dialled)
    one.lively.discard(2)
    while one.state(2) is State.ALIVE:
        one.wait(0.1)
        assert one.now < START + 6
    assert one.state(2) is State.SUSPECT
    assert len(asked(one, A)) == HELPERS
    assert A not in asked(one, A)
    belief = next(belief for _, belief in one.port.told)
    assert (belief.node, belief.incarnation) == (A, 1)
    assert belief.age >= 1.0
    assert all(one.state(number) is State.ALIVE for number in range(3, 10))


@pytest.mark.parametrize("dialled", [True, False])
@pytest.mark.parametrize("confirm", [True, False])
@pytest.mark.parametrize("phase", [0.0, 0.2, 0.45, 0.7, 0.95])
def test_silent_for_three_intervals_is_not_dead_and_for_five_it_is(dialled: bool, confirm: bool, phase: float):
    one = watcher(4, dialled=dialled)
    one.wait(phase)
    one.lively.discard(2)
    silent_since = one.now

    def helpers_answer() -> None:
        if confirm:
            for helper in asked(one, A):
                one.believed(int.from_bytes(helper[:2]), said(A, Saying.SILENT, age=1.0))
        if one.state(2) is State.DEAD and one.port.unlinked == []:
            pytest.fail("a dead node keeps its link")

    one.wait(3.0, helpers_answer)
    assert one.state(2) is not State.DEAD
    one.wait(2.0, helpers_answer)
    assert one.state(2) is State.DEAD
    died = one.m.view.gone[A].since - silent_since
    assert 3.0 < died <= 4.8  # it was heard up to a fraction of a round before
    assert one.port.unlinked[0][0] == A and one.port.unlinked[0][2] is Cause.SILENT
    assert {to for to, saying in one.port.told_about(A) if saying is Saying.DEAD} >= {B, C}
    assert one.port.states(A) == [State.SUSPECT, State.DEAD]


def test_confirmations_make_it_sooner():
    died: list[float] = []
    for confirming in (0, 2):
        one = watcher(4)
        one.lively.discard(2)
        start = one.now
        one.wait(2.0)
        for helper in sorted(asked(one, A))[:confirming]:
            one.believed(int.from_bytes(helper[:2]), said(A, Saying.SILENT, age=1.0))
        one.wait(3.0)
        died.append(one.m.view.gone[A].since - start)
    assert died[1] < died[0]


def test_a_broken_link_is_suspicion_at_once_and_death_in_its_time():
    one = watcher()
    one.down(2)
    assert one.state(2) is State.SUSPECT
    one.wait(3.0)
    assert one.state(2) is State.SUSPECT
    one.wait(1.0)
    assert one.state(2) is State.DEAD
    assert [node for node, _, _ in one.port.unlinked] == []  # there is no link to give up


def test_a_goodbye_is_believed_at_once_and_told():
    one = watcher()
    one.down(2, left=True)
    assert one.state(2) is State.LEFT
    assert sorted(one.port.told_about(A)) == [(B, Saying.LEFT), (C, Saying.LEFT)]


def test_an_idle_link_says_nothing_about_the_node():
    one = watcher()
    one.down(2, idle=True)
    assert one.state(2) is State.ALIVE
    assert one.port.changes == []


@pytest.mark.parametrize("data", [True, False])
def test_whoever_is_heard_again_is_alive(data: bool):
    one = watcher()
    one.lively.discard(2)
    one.wait(2.4)
    assert one.state(2) is State.SUSPECT
    if data:
        one.m.heard(A, one.now)
    else:
        one.lively.add(2)
        one.wait(1.0)
    assert one.state(2) is State.ALIVE
    assert A not in one.m.beliefs.suspicions
    one.lively.add(2)
    one.wait(60.0)
    assert one.port.states(A) == [State.SUSPECT, State.ALIVE]


def test_a_link_that_comes_back_ends_suspicion():
    one = watcher()
    one.down(2)
    one.wait(1.0)
    one.link(2)
    assert one.state(2) is State.ALIVE
    one.wait(30.0)
    assert one.port.states(A) == [State.SUSPECT, State.ALIVE]


def test_the_only_other_node_is_dead_too():
    one = watcher(1)
    one.lively.clear()
    one.wait(5.0)
    assert one.state(2) is State.DEAD
    one.m.link_down(A, "silent", one.now)
    one.wait(1.0)
    assert one.m.next_deadline() is None  # nobody to watch


@pytest.mark.parametrize("dialled", [True, False])
def test_the_first_link_is_watched_from_the_beginning(dialled: bool):
    one = Watcher()
    one.m.link_up(A, record_of(2), dialled, speaks=True, now=one.now)
    deadline = one.m.next_deadline()
    assert deadline is not None and deadline <= one.now + 1.0


def test_a_link_is_given_up_after_five_intervals_whatever_others_say():
    one = watcher()
    one.lively.discard(2)

    def vouch() -> None:
        if A in one.m.beliefs.suspicions:
            one.believed(3, said(A, Saying.HEARD, age=0.1))

    one.wait(5.9, vouch)
    assert one.port.unlinked[0][0] == A
    assert "nothing heard" in one.port.unlinked[0][1]
    assert one.state(2) is State.ALIVE
    one.down(2)
    one.wait(60.0, vouch)
    assert one.m.is_present(A)


# -- vouching


def test_vouched_for_it_changes_at_most_twice_a_minute():
    one = watcher()
    one.lively.discard(2)
    answered = 0.0

    def vouch() -> None:
        nonlocal answered
        for to, belief in one.port.told:
            if belief.node == A and belief.saying == Saying.ASK:
                one.believed(int.from_bytes(to[:2]), said(A, Saying.HEARD, age=0.7))
                answered += 1
        one.port.told.clear()

    one.wait(60.0, vouch)
    assert one.m.is_present(A)
    assert len(one.port.states(A)) <= 2
    assert one.m.view.present[A].heard_by != one.m.own
    assert answered >= 50


def test_the_last_word_of_those_who_vouched_runs_out():
    one = watcher()
    one.lively.discard(2)
    one.wait(2.4)
    one.believed(3, said(A, Saying.HEARD, age=0.2))
    assert one.state(2) is State.ALIVE
    one.wait(3.0)
    assert one.state(2) is State.SUSPECT
    one.wait(2.0)
    assert one.state(2) is State.DEAD


def test_those_asked_before_somebody_vouched_do_not_count():
    """A cut one way lasts, and in the end everybody was asked once: that makes no death later, and no table larger."""
    one = watcher(peers=40)
    one.lively.discard(2)

    def vouch() -> None:
        for to in asked(one, A):
            one.believed(int.from_bytes(to[:2]), said(A, Saying.HEARD, age=0.5))
        one.port.told.clear()

    one.wait(60.0, vouch)
    assert one.state(2) is State.ALIVE
    assert len(one.m.beliefs.suspicions[A].asked) <= HELPERS


def test_old_evidence_saves_nobody():
    one = watcher()
    one.lively.discard(2)
    one.wait(2.4)
    for age in (3.5, 10.0, 4_000_000.0):
        one.believed(3, said(A, Saying.HEARD, age=age))
    assert one.state(2) is State.SUSPECT
    one.wait(3.0)
    assert one.state(2) is State.DEAD


def test_confirmations_of_those_not_asked_count_nothing():
    one = watcher(2)
    one.lively.discard(2)
    one.wait(2.0)
    suspicion = one.m.beliefs.suspicions[A]
    for number in range(50, 90):
        one.believed(number, said(A, Saying.SILENT, age=2.0))
    assert suspicion.timeout() == MOST


def test_asked_about_a_node_it_hears_it_says_so_at_once():
    one = watcher()
    one.believed(3, said(A, Saying.ASK, age=1.0))
    ((to, belief),) = one.port.told
    assert (to, belief.node, belief.saying) == (B, A, Saying.HEARD)
    assert belief.age <= 1.0


def test_asked_about_a_node_it_has_not_heard_lately_it_asks_it_and_tells_all_who_wait():
    one = watcher()
    pulse = one.m.heart.pulses[A]
    pulse.heard = one.now - 1.6  # it has answered, the next question is not due yet
    before = len(one.port.sent)
    one.believed(3, said(A, Saying.ASK, age=1.0))
    one.believed(4, said(A, Saying.ASK, age=1.0))
    assert one.port.told == []
    (message,) = [message for node, message in one.port.sent[before:] if node == A]
    one.answer(A, message)
    assert sorted(one.port.told_about(A)) == [(B, Saying.HEARD), (C, Saying.HEARD)]
    one.port.told.clear()
    one.m.probe(A, one.now)
    one.answer(A, one.port.sent[-1][1])
    assert one.port.told == []  # told once


def test_asked_about_a_node_it_suspects_too_it_confirms():
    one = watcher()
    one.lively.discard(2)
    one.wait(2.6)
    one.port.told.clear()
    one.believed(3, said(A, Saying.ASK, age=1.0))
    ((to, belief),) = one.port.told
    assert (to, belief.saying) == (B, Saying.SILENT)
    assert belief.age > 1.0


def test_hearsay_is_not_passed_on_as_heard():
    """Two that do not hear a node must not keep it alive for each other."""
    one = watcher()
    one.lively.discard(2)
    one.wait(2.4)
    one.believed(3, said(A, Saying.HEARD, age=0.1))
    one.port.told.clear()
    one.believed(4, said(A, Saying.ASK, age=1.0))
    assert Saying.HEARD not in [saying for _, saying in one.port.told_about(A)]


def test_those_who_wait_for_an_answer_are_bounded():
    one = watcher()
    one.lively.discard(2)
    one.wait(2.0)
    for number in range(1000, 2000):
        one.believed(number, said(A, Saying.ASK, age=1.0))
    assert len(one.m.heart.pulses[A].curious) == 64


# -- its own time


@pytest.mark.parametrize("dialled", [True, False])
def test_a_node_that_was_stopped_accuses_nobody(dialled: bool):
    one = watcher(5, dialled=dialled)
    one.now += 30.0  # and then its timer comes first, what was sent meanwhile later
    one.m.on_deadline(one.now)
    assert one.port.changes == []
    one.breathe()
    one.wait(60.0)
    assert one.port.changes == []
    times, longest = one.m.health.stalls(START + 40)
    assert (times, round(longest)) == (1, 30)


def test_being_stopped_again_and_again_stretches_its_own_timeouts():
    one = watcher(2)
    for _ in range(10):
        one.now += 5.0
        one.m.on_deadline(one.now)
    assert one.m.health.stretch == 3.0
    one.lively.discard(2)
    one.breathe()
    one.wait(4.9)
    assert one.state(2) is not State.DEAD  # it doubts itself first


def test_its_health_is_told_and_that_of_others_kept():
    one = watcher(1)
    one.m.health.score = 5
    one.m.probe(A, one.now)
    question = one.port.sent[-1][1]
    assert question[4 + 13 + 8] == 5
    one.m.control_received(A, question[:4] + encode_answer(1, Beat(1, 6, 0), None), one.now)
    assert one.m.heart.pulses[A].health == 6


def test_it_recovers_with_rounds_in_which_all_answer():
    one = watcher(2)
    one.m.health.score = 4
    one.wait(3.0)
    assert one.m.health.score == 1
    one.wait(3.0)
    assert one.m.health.score == 0
    one.m.health.score = 4
    one.lively.discard(2)
    one.wait(3.0)
    assert one.m.health.score >= 3  # the first one had been answered


def test_early_calls_do_nothing():
    one = watcher()
    before = len(one.port.sent)
    deadline = one.m.next_deadline()
    assert deadline is not None
    for _ in range(100):
        one.m.on_deadline(deadline - 0.01)
    assert len(one.port.sent) == before
    assert one.m.next_deadline() == deadline


# -- what others believe


@pytest.mark.parametrize("saying", [Saying.DEAD, Saying.LEFT])
@pytest.mark.parametrize(("incarnation", "refuted"), [(0, 0), (1, 1), (2, 1), (1 << 20, 1), (2**64 - 1, 0)])
def test_it_refutes_what_is_not_true_of_itself(saying: Saying, incarnation: int, refuted: int):
    one = watcher()
    one.believed(2, said(one.m.own, saying, incarnation=incarnation))
    assert one.port.refutals == refuted
    assert one.m.health.score == refuted
    assert one.state(1) is State.ALIVE


@pytest.mark.parametrize("saying", [Saying.HEARD, Saying.SILENT, Saying.ASK, 0, 7, 255])
def test_other_words_about_itself_mean_nothing(saying: int):
    one = watcher()
    one.believed(2, said(one.m.own, saying, incarnation=5))
    assert (one.port.refutals, one.port.told) == (0, [])


@pytest.mark.parametrize("saying", list(Saying))
def test_a_belief_about_an_incarnation_never_seen_is_dropped_by_name(saying: Saying):
    one = watcher()
    one.lively.discard(2)
    one.wait(2.4)
    before = one.port.told[:]
    one.believed(3, said(A, saying, incarnation=2))
    one.believed(3, said(id_of(99), saying))
    assert one.counts["dropped.belief-unseen"] == 2
    assert one.state(2) is State.SUSPECT
    assert one.state(99) is None
    assert one.port.told == before


@pytest.mark.parametrize("saying", list(Saying))
def test_a_belief_about_an_incarnation_that_is_over_is_answered_with_the_record(saying: Saying):
    one = watcher()
    one.learn(2, 2, incarnation=5, version=1)
    one.believed(3, said(A, saying, incarnation=4))
    assert one.port.passed == [(A, B)]
    assert one.state(2) is State.ALIVE
    assert one.port.changes == []


def test_dead_is_adopted_of_a_node_that_is_not_heard_here():
    one = watcher()
    one.lively.discard(2)
    one.wait(2.6)
    one.port.told.clear()
    one.believed(3, said(A, Saying.DEAD))
    assert one.state(2) is State.DEAD
    assert one.port.unlinked[0][0] == A
    assert one.port.told == []  # in a full mesh whoever found out has told all
    one.believed(4, said(A, Saying.DEAD))
    assert one.port.states(A) == [State.SUSPECT, State.DEAD]


def test_dead_is_forwarded_to_a_node_that_is_heard_here():
    one = watcher()
    one.believed(3, said(A, Saying.DEAD))
    assert one.state(2) is State.ALIVE
    assert one.port.told == [(A, Belief(A, 1, Saying.DEAD))]
    assert (one.port.changes, one.port.unlinked) == ([], [])


def test_a_node_known_by_hearsay_only_is_dead_when_told_so():
    one = watcher()
    one.learn(9, 3)
    assert one.state(9) is State.JOINING
    one.believed(3, said(id_of(9), Saying.DEAD))
    assert one.state(9) is State.DEAD


def test_left_is_stronger_than_dead_and_neither_than_the_next_incarnation():
    one = watcher()
    one.down(2)
    one.believed(3, said(A, Saying.DEAD))
    one.believed(3, said(A, Saying.LEFT))
    assert one.state(2) is State.LEFT
    assert one.port.changes[-1] == (A, State.DEAD, State.LEFT, "said by n3")
    one.believed(3, said(A, Saying.DEAD))
    assert one.state(2) is State.LEFT
    one.learn(2, 3, incarnation=2)
    assert one.m.is_present(A)


@pytest.mark.parametrize("saying", [Saying.HEARD, Saying.SILENT, Saying.ASK, 0, 77])
def test_nothing_else_raises_or_moves_the_dead(saying: int):
    one = watcher()
    one.down(2, left=True)
    one.port.told.clear()
    one.believed(3, said(A, saying))
    assert one.state(2) is State.LEFT
    assert one.port.told == []


def test_a_refutation_that_comes_by_another_way_ends_suspicion():
    one = watcher()
    one.down(2)
    one.wait(1.0)
    one.learn(2, 3, incarnation=2, version=1)
    assert one.state(2) is State.ALIVE
    assert one.m.view.present[A].heard_by == B


# -- tombstones


def dead(*, left: bool = False) -> Watcher:
    one = watcher()
    one.down(2, left=left)
    one.wait(5.0)
    one.port.told.clear()
    one.port.changes.clear()
    return one


@pytest.mark.parametrize(("left", "saying"), [(False, Saying.DEAD), (True, Saying.LEFT)])
def test_a_dead_node_that_links_is_told_and_comes_back_with_its_next_incarnation(left: bool, saying: Saying):
    one = dead(left=left)
    one.m.link_up(A, record_of(2), True, speaks=True, now=one.now)
    assert one.port.told == [(A, Belief(A, 1, saying))]
    assert not one.m.is_present(A)
    assert one.m.judge(A, record_of(2), 0, 9, full=True) is Verdict.BURIED
    one.learn(2, 2, incarnation=2, version=1)
    assert one.state(2) is State.ALIVE
    assert one.port.changes == [(A, State.LEFT if left else State.DEAD, State.ALIVE, "it is back")]
    one.lively.add(2)
    one.breathe()
    one.wait(30.0)
    assert one.state(2) is State.ALIVE


@pytest.mark.parametrize("dialled", [True, False])
def test_a_dead_node_that_links_to_a_lone_one_and_falls_silent_is_watched(dialled: bool):
    one = Watcher()
    one.link(2)
    one.down(2)
    one.wait(5.0)
    assert (one.state(2), one.m.next_deadline()) == (State.DEAD, None)
    one.m.link_up(A, record_of(2), dialled, speaks=True, now=one.now)
    one.wait(8.0)
    assert one.port.unlinked[-1][::2] == (A, Cause.SILENT)


def test_a_dead_node_of_the_first_release_cannot_refute_and_is_simply_back():
    one = dead()
    one.link(2, speaks=False)
    assert one.port.told == []
    assert one.state(2) is State.ALIVE
    assert one.m.view.present[A].version == 0
    one.breathe()
    one.wait(30.0)
    assert one.state(2) is State.ALIVE


def test_tombstones_expire_while_others_are_watched():
    one = dead()
    one.wait(3_590.0)
    assert one.state(2) is State.DEAD
    one.wait(12.0)
    assert one.state(2) is None


# -- answers


def test_what_was_never_asked_comes_late_or_twice_changes_no_belief():
    one = watcher(2)
    one.lively.discard(2)
    one.wait(1.3)
    message = next(message for node, message in reversed(one.port.sent) if node == A)
    unknown = (int.from_bytes(message[:4]) + 99 | 1 << 31).to_bytes(4) + message[4:]
    one.wait(1.0)
    assert one.state(2) is State.SUSPECT
    one.answer(A, unknown)
    assert one.counts == {"dropped.survey-unknown": 1}
    assert one.state(2) is State.SUSPECT
    one.answer(A, message, digest=12345)
    assert one.state(2) is State.ALIVE
    one.answer(A, message, digest=54321)
    assert one.counts["dropped.survey-repeated"] + one.counts["dropped.survey-late"] == 1
    assert one.port.differed == []


def test_messages_of_nobody_are_ignored():
    one = watcher(1)
    one.m.control_received(id_of(77), b"whatever", one.now)
    one.m.heard(id_of(77), one.now)
    one.m.probe(id_of(77), one.now)
    one.m.link_down(id_of(77), "test", one.now)
    one.m.link_down(id_of(77), "test", one.now, left=True)
    assert one.port.changes == []


def test_equal_digests_are_in_step_and_others_show_their_buckets():
    one = watcher(1)
    question = one.port.sent[-1][1]
    one.port.stepped.clear()
    one.m.probe(A, one.now)
    one.answer(A, one.port.sent[-1][1])
    assert one.port.stepped == [A]
    one.m.probe(A, one.now)
    question = one.port.sent[-1][1]
    answer = encode_answer(1, Beat(1, 0, one.m.view.digest ^ 1), [5] * 256)
    one.m.control_received(A, question[:4] + answer, one.now)
    assert one.port.differed == [(A, (5,) * 256)]
    assert one.port.stepped == [A]


def test_a_probe_asks_only_where_this_side_asks():
    one = Watcher()
    one.link(2)
    one.link(3, dialled=False)
    before = len(one.port.sent)
    one.m.probe(A, one.now)
    one.m.probe(B, one.now)
    assert [node for node, _ in one.port.sent[before:]] == [A]


# -- links whose edge watches them itself


def test_an_edge_that_watches_its_links_itself_needs_no_timer():
    one = Watcher()
    one.link(2, dialled=None)
    assert one.m.next_deadline() is None
    assert one.state(2) is State.ALIVE
    assert one.m.is_linked(A)
    assert not one.m.compares(A)
    one.down(2)
    assert one.state(2) is State.SUSPECT
    one.wait(5.0)
    assert one.state(2) is State.DEAD


def test_a_node_whose_watch_ends_with_its_link_is_watched_here():
    one = Watcher()
    one.link(2, dialled=None)
    one.down(2, idle=True)
    assert one.m.next_deadline() is not None


def test_one_that_is_buried_with_its_link_does_not_hide_those_to_watch():
    one = Watcher()
    one.link(2)
    one.link(3, dialled=None)
    one.believed(2, said(B, Saying.DEAD))
    one.m.on_deadline(one.now + 1.0)
    assert one.m.next_deadline() is not None


# -- hearsay


def test_hearsay_is_joining_until_linked():
    one = watcher()
    node = one.learn(9, 3)
    assert one.state(9) is State.JOINING
    assert one.port.found == [node]
    one.link(9)
    assert one.state(9) is State.ALIVE
    assert one.port.states(node) == [State.JOINING, State.ALIVE]


def test_hearsay_that_nobody_can_confirm_is_forgotten_and_what_others_hear_stays():
    one = watcher()
    nobody, somebody = one.learn(9, 3), one.learn(10, 3)

    def vouch() -> None:
        for to, belief in one.port.told:
            if belief.node == somebody and belief.saying == Saying.ASK:
                one.believed(int.from_bytes(to[:2]), said(somebody, Saying.HEARD, age=0.5))
        one.port.told.clear()

    one.wait(20.0, vouch)
    assert one.state(9) is State.DEAD
    assert one.m.is_present(somebody)
    assert one.port.found.count(nobody) >= 1


def test_a_record_from_the_future_is_recognised():
    one = watcher()
    assert one.m.judge(A, record_of(2, 1 << 40), 0, 1, full=True) is Verdict.FUTURE


def test_who_asks_seldom_is_not_dead_before_three_of_its_own_intervals():
    one = Watcher()
    one.link(2, dialled=False)
    one.link(3)
    pulse = one.m.heart.pulses[A]
    pulse.interval = 10.0  # as its questions announce
    one.lively.discard(2)
    one.wait(29.0)
    assert one.state(2) is State.ALIVE
    one.wait(12.0)
    assert one.state(2) is State.SUSPECT
    one.wait(10.0)
    assert one.state(2) is State.DEAD
