"""Whatever peers say of themselves and of others: membership never raises, and its own invariants hold."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from irisd.errors import WireError
from irisd.membership.rings import watchers
from irisd.membership.rounds import Beat, decode_answer, decode_question, encode_answer, encode_question
from irisd.membership.view import Verdict
from irisd.model import State
from irisd.wire.views import Belief, Saying
from tests.unit.membership.ground import Watcher, id_of, record_of
from tests.unit.membership.test_view import recomputed

NUMBERS = st.integers(1, 9)
WIDE = st.one_of(st.integers(0, 4), st.sampled_from([2**20, 2**20 + 2, 2**62, 2**64 - 1]))
SAYINGS = st.one_of(st.sampled_from(list(Saying)).map(int), st.integers(0, 255))
AGES = st.one_of(st.floats(0, 6), st.just(4_294_967.295))
BELIEF = st.builds(Belief, NUMBERS.map(id_of), WIDE, SAYINGS, AGES)
BEAT = st.builds(Beat, WIDE, st.integers(0, 255), st.integers(0, 2**128 - 1))
BUCKETS = st.one_of(st.none(), st.just([3] * 256))

STEP = st.one_of(
    st.tuples(st.just("link"), NUMBERS, st.sampled_from([True, False, None]), st.booleans()),
    st.tuples(st.just("down"), NUMBERS, st.booleans(), st.booleans()),
    st.tuples(st.just("believed"), NUMBERS, st.lists(BELIEF, max_size=5)),
    st.tuples(st.just("record"), NUMBERS, NUMBERS, WIDE, WIDE, WIDE, st.booleans()),
    st.tuples(st.just("control"), NUMBERS, st.binary(max_size=60)),
    st.tuples(st.just("question"), NUMBERS, BEAT, st.sampled_from([0.01, 1.0, 3600.0])),
    st.tuples(st.just("answer"), NUMBERS, st.integers(0, 40), BEAT, BUCKETS),
    st.tuples(st.just("heard"), NUMBERS),
    st.tuples(st.just("probe"), NUMBERS),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 1.0, 4.0])),
    st.tuples(st.just("stall"), st.sampled_from([0.3, 2.0, 30.0])),
)


def play(one: Watcher, step: tuple[Any, ...]) -> None:
    m, now = one.m, one.now
    match step:
        case ("link", 1, *_) | ("down", 1, *_):
            pass  # an edge does not link a node with itself
        case ("link", number, dialled, speaks):
            if m.is_linked(id_of(number)):
                m.link_down(id_of(number), "replaced", now)
            m.link_up(id_of(number), record_of(number), dialled, speaks=speaks, now=now)
        case ("down", number, left, idle):
            m.link_down(id_of(number), "test", now, left=left, idle=idle)
        case ("believed", sender, beliefs):
            m.believed(id_of(sender), beliefs, now)
        case ("record", number, by, incarnation, base, version, full):
            about = record_of(number, min(incarnation, 2**62)) if incarnation else None
            verdict = m.judge(id_of(number), about, base, version, full=full)
            if verdict is Verdict.NEWS:
                m.recorded(id_of(number), about, version, id_of(by), now)
        case ("control", number, message):
            try:
                m.control_received(id_of(number), message, now)
            except WireError as error:
                assert str(error)
        case ("question", number, beat, interval):
            pulse = m.heart.pulses.get(id_of(number))
            if pulse is not None and not pulse.asks:
                m.control_received(id_of(number), b"\x80\x00\x00\x07" + encode_question(interval, 1, beat), now)
        case ("answer", number, back, beat, buckets):
            pulse = m.heart.pulses.get(id_of(number))
            if pulse is not None and pulse.asks and one.port.sent:
                asked = one.port.sent[-1 - back % len(one.port.sent)][1]
                if asked[0] & 0x80:
                    m.control_received(id_of(number), asked[:4] + encode_answer(1, beat, buckets), now)
        case ("heard", number):
            m.heard(id_of(number), now)
        case ("probe", number):
            m.probe(id_of(number), now)
        case ("wait", seconds):
            one.wait(seconds)
        case ("stall", seconds):
            one.now += seconds
            m.on_deadline(one.now)


def check(one: Watcher) -> None:
    m = one.m
    view = m.view
    assert (view.digest, view.buckets) == recomputed(view)
    assert m.own in view.present and view.present[m.own].state is State.ALIVE
    assert not view.present.keys() & view.gone.keys()
    assert all(known.state >= State.DEAD for known in view.gone.values())
    assert all(known.state < State.DEAD for known in view.present.values())
    assert m.beliefs.suspicions.keys() <= view.present.keys() - {m.own}
    assert set(m.rings.neighbours) == set(watchers(m.own, view.present))
    assert m.spread == (len(view.present) > 4)
    assert 0 <= m.health.score <= 8
    watched = view.present.keys() - {m.own} - m.beliefs.unwatched
    assert (m.next_deadline() is not None) or not watched


@given(st.lists(STEP, max_size=25))
def test_membership_may_be_told_anything(steps: list[tuple[Any, ...]]):
    one = Watcher(limit=4)
    for step in steps:
        play(one, step)
        check(one)
    one.wait(1.0)
    check(one)
    for node, before, state, reason in one.port.changes:
        assert node != one.m.own
        assert before is not state
        assert reason


@given(st.binary(max_size=1100))
def test_a_heartbeat_or_the_documented_error(raw: bytes):
    for decode in (decode_question, decode_answer):
        try:
            said = decode(raw)
        except WireError as error:
            assert str(error)
        else:
            assert said.beat is None or 0 <= said.beat.digest < 2**128


@given(BEAT, st.integers(0, 2**64 - 1), BUCKETS, st.data())
def test_every_truncation_of_an_answer_says_less(
    beat: Beat, number: int, buckets: list[int] | None, data: st.DataObject
):
    raw = encode_answer(number, beat, buckets)
    cut = data.draw(st.integers(0, len(raw) - 1))
    try:
        said = decode_answer(raw[:cut])
    except WireError:
        assert cut < 9
    else:
        assert said.round == number
        assert said.buckets is None
        assert said.beat in (None, beat)
