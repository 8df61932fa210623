"""Records and apps with very many claims end and are replaced while other things go on."""

from __future__ import annotations

import pytest

from irisd.flow.timers import TICK
from irisd.model import FEATURES, Frame, Kind
from irisd.registry import MAX_SHAPES
from irisd.wire import encode_want
from tests.unit.node.house import (
    Place,
    bodies,
    carry,
    cut,
    join,
    kinds,
    link,
    lost,
    meet,
    only,
    pair,
    publish,
    pump,
    subscribe,
    together,
)


def many(count: int, form: str = "t.{}", *, first: int = 1) -> list[Frame]:
    return [subscribe(first + 2 * number, form.format(number)) for number in range(count)]


def test_a_record_that_is_cut_off_takes_nothing_of_what_follows_it():
    """A relay streams the author's record; the author links anew; a change of somebody else waits behind the stream."""
    author, relay, reader, other = (Place(number, full_mesh_limit=1) for number in (1, 2, 3, 4))
    app, servant = author.app(), other.app()
    author.say(app, *many(6000))
    author.hear(app)
    meet(relay, author)
    meet(relay, other)
    for _ in range(5000):  # its version is far ahead of the author's
        other.say(servant, join(1, "zz"), Frame(Kind.LEAVE, id=1))
    other.hear(servant)
    pump(relay, other)
    relay.links[reader.id], reader.links[relay.id] = reader, relay
    relay.link_up(reader.id, features=FEATURES, dialled=True)
    reader.link_up(relay.id, features=FEATURES, dialled=False)
    for _ in range(3):
        carry(reader, relay)
        carry(relay, reader)
    for node in (other, author):
        for body in encode_want([node.id]):
            relay.from_peer(reader, Frame(Kind.WANT, body=body))
        if node is other:
            carry(relay, reader)
    carry(relay, reader, 1)
    carry(relay, reader, 1)
    other.say(servant, join(3, "late"))
    relay.from_peer(other, *other.take(relay.id, 1 << 24))
    cut(author, relay)
    author.say(app, subscribe(20_001, "late"))
    meet(relay, author)
    carry(relay, reader)
    together(10, author, relay, reader, other)
    known = reader.node.core.registry
    assert known.clusters_of(author.id) == []
    assert [claim.cluster for claim in known.clusters_of(other.id)] == ["late"]
    assert known.size(author.id) == author.node.core.registry.size(author.id) == 6001


def test_a_long_record_that_a_short_one_replaces_leaves_nothing_behind():
    near, far = Place(1), Place(2)
    app = near.app()
    near.say(app, *many(6000, "t.{}.*"))
    near.hear(app)
    link(near, far)
    assert far.node.core.registry.size(near.id) == 6000
    cut(near, far)
    near.gone(app)
    near.wait(5)
    link(near, far)
    far.wait(5)
    registry = far.node.core.registry
    assert (registry.size(near.id), len(registry.retired), len(registry._topics)) == (0, 0, 0)


@pytest.mark.parametrize("publishes_here", [False, True])
def test_a_group_goes_on_at_once_without_an_app_that_takes_long_to_forget(publishes_here: bool):
    near, far = pair()
    worker, app = far.app(), near.app()
    far.say(worker, subscribe(1, "job", group="w"))
    pump(near, far)
    near.say(app, subscribe(1, "job", group="w"), *many(9000, first=3))
    pump(near, far)
    far.hear(worker)
    near.hear(app)
    place = near if publishes_here else far
    publisher = place.app()
    near.gone(app)
    pump(near, far)
    place.say(publisher, *[publish("job", b"x") for _ in range(10)])
    pump(near, far)
    assert len(bodies([frame for frame in far.hear(worker) if frame.kind == Kind.EVENT])) == 10


def test_what_a_group_lost_is_told_to_the_living():
    near, far = pair()
    dead, living = near.app(), near.app()
    near.say(dead, subscribe(1, "job", group="w"), *many(9000, first=3))
    near.say(living, subscribe(1, "job", group="w"))
    pump(near, far)
    near.hear(living)
    near.gone(dead)
    near.from_peer(far, Frame(Kind.LOST, address="job", group="w", count=3, seq=1))
    assert lost(near.hear(living)) == 3


def test_what_a_gone_app_still_holds_stands_in_nobodys_way():
    place = Place()
    app = place.app()
    shapes = [".".join("*" if number >> bit & 1 else "t" for bit in range(10)) for number in range(1, MAX_SHAPES + 1)]
    place.say(
        app, *[subscribe(2 * number + 1, filter) for number, filter in enumerate(shapes)], *many(9000, first=5001)
    )
    place.hear(app)
    place.gone(app)
    successor = place.app()
    place.say(successor, subscribe(1, "new.shape.>"))
    assert only(kinds(place.hear(successor))) == "DONE"


def test_forgetting_is_not_put_off_by_those_who_keep_coming():
    near, far = Place(1), Place(2)
    app = near.app()
    near.say(app, *many(20_000))
    near.hear(app)
    link(near, far)
    cut(near, far)
    near.gone(app)
    near.wait(10)
    near.say(near.app(), *many(5000, "n.{}"))
    link(near, far)
    registry = far.node.core.registry
    for number in range(40):  # each with a record of two pieces
        guest = Place(10 + number)
        guest.say(guest.app(), *many(110, f"c{number}.{{}}." + "x" * 150))
        link(guest, far)
        far.wait(TICK / 2)
    assert not registry.retired
