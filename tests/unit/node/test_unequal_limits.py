"""Two nodes that allow bodies of different sizes: what is too large for one fails there, and the link stands."""

from __future__ import annotations

import pytest

from irisd.model import PART_BYTES, Code, Executed, Frame, Kind
from tests.unit.node.house import Place, ask, kinds, link, only, publish, pump, reply, request, subscribe

SMALL = 1000


@pytest.fixture(params=[SMALL, 2 * PART_BYTES], ids=["whole frames", "parts"])
def places(request: pytest.FixtureRequest) -> tuple[Place, Place, bytes]:
    """One that allows everything, one that allows little, and a body that is too large for the second."""
    large, small = Place(1), Place(2, max_body=request.param)
    link(large, small)
    return large, small, bytes(request.param + 1)


def quiet(*places: Place) -> None:
    for place in places:
        assert place.unlinked() == []
        assert place.quiet()


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.PUSH, Kind.TUNNEL])
def test_a_call_that_is_too_large_for_the_other_node(places: tuple[Place, Place, bytes], kind: Kind):
    large, small, body = places
    small.serving("far")
    pump(large, small)
    app = large.app()
    large.say(app, ask(kind, 1, "far", body=body))
    pump(large, small)
    error = only(large.hear(app))
    assert (error.kind, error.code, error.executed) == (Kind.ERROR, Code.TOO_LARGE, Executed.NO)
    assert error.detail == f"n2 takes bodies of at most {len(body) - 1} bytes"
    quiet(large, small)


@pytest.mark.parametrize("kind", [Kind.SURVEY, Kind.BROADCAST])
def test_those_who_can_be_asked_are(places: tuple[Place, Place, bytes], kind: Kind):
    large, small, body = places
    small.serving("both")
    pump(large, small)
    near = large.serving("both")
    app = large.app()
    large.say(app, ask(kind, 1, "both", body=body))
    pump(large, small)
    asked = large.hear(near)[0]
    if kind == Kind.SURVEY:
        large.say(near, reply(asked.id))
    done = large.hear(app)[-1]
    assert (done.kind, done.count) == (Kind.DONE, 1)
    quiet(large, small)


def test_an_answer_that_is_too_large_for_the_callers_node(places: tuple[Place, Place, bytes]):
    large, small, body = places
    member = large.serving("near")
    pump(large, small)
    app = small.app()
    small.say(app, request(1, "near"))
    pump(large, small)
    large.say(member, reply(only(large.hear(member)).id, body))
    pump(large, small)
    error = only(small.hear(app))
    assert (error.kind, error.code, error.executed) == (Kind.ERROR, Code.TOO_LARGE, Executed.YES)
    assert error.member.startswith("app@n1/")
    quiet(large, small)


def test_an_answer_to_a_survey_that_is_too_large(places: tuple[Place, Place, bytes]):
    large, small, body = places
    member = large.serving("near")
    pump(large, small)
    app = small.app()
    small.say(app, ask(Kind.SURVEY, 1, "near"))
    pump(large, small)
    large.say(member, reply(only(large.hear(member)).id, body))
    pump(large, small)
    error, done = small.hear(app)
    assert (error.code, error.executed) == (Code.TOO_LARGE, Executed.YES)
    assert done.members == (error.member,)
    quiet(large, small)


@pytest.mark.parametrize("group", ["", "workers"])
def test_events_that_are_too_large_are_counted_as_lost(places: tuple[Place, Place, bytes], group: str):
    large, small, body = places
    reader, publisher = small.app(), large.app()
    small.say(reader, subscribe(1, "t", group=group))
    pump(large, small)
    assert kinds(small.hear(reader)) == ["DONE"]
    large.say(publisher, publish("t", b"a"), publish("t", body), publish("t", b"b"))
    pump(large, small)
    heard = small.hear(reader)
    assert b"".join(frame.body for frame in heard) == b"ab"
    assert sum(frame.lost for frame in heard) == 1
    assert small.counters["dropped.too-large"] == 1
    assert [frame for frame in large.hear(publisher) if frame.kind == Kind.ERROR] == []
    quiet(large, small)


def test_parts_of_a_refused_body_find_no_place():
    small = Place(2, max_body=SMALL)
    small.link_up(bytes([1]) * 16)
    one = bytes([1]) * 16
    small.from_peer(one, Frame(Kind.RECORD, count=1, full=True))
    small.hear(one)
    small.from_peer(one, request(1, "far", more=True, total=2**60, body=bytes(10)))
    assert only(small.hear(one)).code == Code.TOO_LARGE
    for more in (True, True, False):
        small.from_peer(one, Frame(Kind.PART, id=1, body=bytes(10), more=more))
    assert small.hear(one) == []
    assert small.unlinked() == []
