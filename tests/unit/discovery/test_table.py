"""Candidates: when which is dialled, what strangers may cost, what is forgotten when."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest

from irisd.config import Address
from irisd.discovery.lanes import Bucket
from irisd.discovery.table import (
    GIVE_UP,
    HOLD_BACK,
    LOOK_AGAIN,
    MAX_DELAY,
    NOBODY,
    UNHEARD,
    Attempted,
    Limits,
    Source,
    Table,
    node_key,
)

OWN = b"\x80" * 16
LOW, HIGH = b"\x10" * 16, b"\xf0" * 16
AT = Address("192.0.2.1", 7511)
ELSEWHERE = Address("192.0.2.2", 7511)
UNREACHABLE = Attempted("unreachable", "nothing there")


class World:
    """A table, the links there are, and a clock."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.links: set[bytes] = set()
        self.unwanted: set[bytes] = set()
        self.table = Table(
            OWN, self.links.__contains__, Random(7), limits, wants=lambda node_id: node_id not in self.unwanted
        )
        self.now = 100.0

    def multicast(self, node_id: bytes = HIGH, *addresses: Address) -> bool:
        return self.table.heard_node(node_id, addresses or (AT,), Source.MULTICAST, self.now)

    def seed(self, address: Address = AT) -> bool:
        return self.table.heard_address(address, Source.SEED, self.now)

    def take(self, after: float = 0.0):
        self.now += after
        return self.table.take(self.now)

    def dial(self, result: Attempted = UNREACHABLE, within: float = math.inf):
        """Wait until one is due, dial it, and give how long that took."""
        began = self.now
        self.now = max(self.now, self.table.deadline(self.now))
        assert self.now - began <= within, "nothing is due in time"
        (candidate,) = self.table.take(self.now)
        self.end(candidate, result)
        return candidate, self.now - began

    def end(self, candidate, result: Attempted) -> None:
        if result.linked:
            self.links.add(result.node_id)
        self.table.attempted(candidate, candidate.trusted, result, self.now)

    def peer_tells(self, node_id: bytes = HIGH, *addresses: Address) -> bool:
        return self.table.heard_node(node_id, addresses or (AT,), Source.PEER, self.now)

    def unreachable_for(self, seconds: float, dial: float = 0.0) -> list[float]:
        """Let every dial fail, after so many seconds each; give when they began, since now."""
        began, dials = self.now, []
        while (due := self.table.deadline(self.now)) - began < seconds:
            self.now = max(self.now, due)
            for candidate in self.table.take(self.now):
                dials.append(self.now - began)
                self.now += dial
                self.end(candidate, UNREACHABLE)
        self.now = max(self.now, began + seconds)
        return dials

    def linked(self, node_id: bytes = HIGH, address: Address = AT) -> Attempted:
        return Attempted("linked", linked=True, node_id=node_id, address=address)

    def down(self, node_id: bytes, *, left: bool = False) -> None:
        self.links.discard(node_id)
        self.table.link_down(node_id, self.now, left=left)


def random_id(number: int) -> bytes:
    return b"\xff" + number.to_bytes(15, "big")


def test_a_seed_is_dialled_at_once_and_anybody_is_welcome():
    world = World()
    assert world.seed()
    candidate, waited = world.dial()
    assert waited == 0.0
    assert (candidate.addresses, candidate.expected) == ((AT,), NOBODY)


def test_the_lower_id_dials_and_the_higher_holds_back():
    world = World()
    world.multicast(HIGH)
    assert [c.expected for c in world.take()] == [HIGH]
    other = World()
    other.multicast(LOW)
    assert other.take() == []
    candidate, waited = other.dial()
    assert candidate.expected == LOW
    assert HOLD_BACK <= waited <= 1.5 * HOLD_BACK


def test_our_own_announcement_is_no_candidate():
    world = World()
    assert not world.multicast(OWN)
    assert len(world.table) == 0
    assert world.table.counts == {"own": 1}


def test_failures_double_the_delay_up_to_half_a_minute():
    world = World()
    world.seed()
    waits = [world.dial()[1] for _ in range(14)]
    assert waits[0] == 0.0
    for number, wait in enumerate(waits[1:]):
        longest = min(MAX_DELAY, 0.1 * 2**number)
        assert longest / 2 <= wait <= longest
    assert waits[-1] >= MAX_DELAY / 2


def test_what_is_hopeless_waits_long_at_once():
    world = World()
    world.seed()
    world.dial(Attempted("self", node_id=OWN, hopeless=True))
    _, waited = world.dial()
    assert waited >= MAX_DELAY / 2


def test_while_linked_nothing_is_dialled_and_afterwards_soon():
    world = World()
    world.multicast()
    world.dial(world.linked())
    assert world.table.deadline(world.now) == math.inf
    world.now += 60.0
    world.down(HIGH)
    candidate, waited = world.dial(within=0.1)
    assert candidate.expected == NOBODY, "whoever is there next is welcome too"
    assert waited <= 0.1


def test_a_link_they_dialled_parks_the_candidate_too():
    world = World()
    world.multicast()
    world.links.add(HIGH)
    world.table.link_up(HIGH, world.now)
    assert world.take() == []
    world.down(HIGH)
    candidate, _ = world.dial(within=1.0)
    assert candidate.expected == HIGH, "what was only announced is not proven to be its address"


def test_a_link_that_does_not_last_counts_as_a_failure():
    world = World()
    world.multicast()
    for _ in range(6):
        world.dial(world.linked())
        world.down(HIGH)
    _, waited = world.dial()
    assert waited >= 0.8


def test_a_duplicate_says_who_is_there():
    world = World()
    world.seed()
    world.links.add(HIGH)
    world.dial(Attempted("duplicate", node_id=HIGH))
    assert world.table.deadline(world.now) == math.inf
    world.down(HIGH)
    world.dial(within=1.0)


def test_who_says_goodbye_over_the_link_is_forgotten_a_seed_is_not():
    world = World()
    world.multicast()
    world.dial(world.linked())
    world.seed(ELSEWHERE)
    world.dial(world.linked(address=ELSEWHERE))
    world.down(HIGH, left=True)
    assert [c.key for c in world.table.candidates()] == [str(ELSEWHERE)]
    world.dial(within=1.0)


def test_goodbye_by_multicast_is_believed_of_strangers_only():
    world = World()
    world.multicast()
    assert world.table.goodbye(HIGH)
    assert world.take() == []
    world.multicast()
    world.dial(world.linked())
    assert not world.table.goodbye(HIGH)
    assert world.table.of_node(HIGH) is not None


def test_nobody_can_talk_us_out_of_an_address_that_worked():
    world = World()
    world.multicast(HIGH, AT)
    world.dial(world.linked())
    for number in range(40):
        world.multicast(HIGH, Address("203.0.113.9", 1 + number))
    candidate = world.table.of_node(HIGH)
    assert candidate is not None
    assert candidate.addresses[0] == AT
    assert len(candidate.addresses) == 16


def test_new_addresses_are_dialled_at_once():
    world = World()
    world.multicast(HIGH, AT)
    for _ in range(8):
        world.dial()
    assert world.multicast(HIGH, ELSEWHERE)
    candidate, waited = world.dial()
    assert waited == 0.0
    assert candidate.addresses == (ELSEWHERE, AT)


def test_a_node_started_again_takes_the_place_of_the_old_one():
    world = World()
    world.multicast(HIGH)
    world.dial(world.linked())
    world.down(HIGH)
    again = b"\xf1" * 16
    world.multicast(again)
    for candidate in world.take(1.0):
        world.end(candidate, world.linked(again))
    assert [c.peer_id for c in world.table.candidates()] == [again] * len(world.table)
    assert node_key(again) in world.table


def test_a_node_that_is_started_again_and_again_and_dials_us_leaves_one_candidate():
    """We never dial it ourselves, so no dial of ours shows who is there now; its record does."""
    world = World()
    world.seed(ELSEWHERE)
    for number in range(100):
        node = random_id(number)
        world.links.add(node)
        world.table.link_up(node, world.now)
        world.peer_tells(node)
        world.now += 5.0
        world.down(node)
    assert [c.key for c in world.table.candidates()] == [str(ELSEWHERE), node_key(random_id(99))]


def test_words_of_others_take_nobodys_place():
    """A node at more addresses, one of which somebody else has too; and what anybody may have announced."""
    world = World()
    world.peer_tells(LOW, AT, ELSEWHERE)
    world.links.add(HIGH)
    world.peer_tells(HIGH, AT)
    world.multicast(HIGH, AT, ELSEWHERE)
    world.peer_tells(b"\xf1" * 16, AT, ELSEWHERE)  # not linked
    assert {c.peer_id for c in world.table.candidates()} == {LOW, HIGH, b"\xf1" * 16}


def test_strangers_have_a_budget_of_their_own():
    limits = Limits(announced_dials=4, announced_rate=10.0, announced_burst=20.0)
    world = World(limits)
    for number in range(1_000):
        world.multicast(random_id(number))
    taken = world.take()
    assert len(taken) == 4
    world.seed()
    assert [c.source for c in world.take()] == [Source.SEED]
    dials = 4
    for _ in range(1_000):
        for candidate in taken:
            world.end(candidate, UNREACHABLE)
        taken = world.take(0.01)
        dials += len(taken)
    assert dials <= 20 + 10 * 10 + 4


def test_the_table_is_bounded_and_keeps_what_is_proven():
    world = World(Limits(candidates=64))
    world.multicast(HIGH)
    world.dial(world.linked())
    world.seed(ELSEWHERE)
    for number in range(1_000):
        world.multicast(random_id(number))
        assert len(world.table) <= 64
    assert world.table.of_node(HIGH) is not None
    assert str(ELSEWHERE) in world.table
    assert world.seed(Address("192.0.2.3", 1)), "a seed finds room"
    assert len(world.table) <= 64


def test_whom_a_peer_tells_of_finds_room_among_those_that_are_long_gone():
    world = World(Limits(candidates=64))
    world.seed(ELSEWHERE)
    world.links.add(HIGH)
    world.peer_tells(HIGH)
    for number in range(100):
        assert world.peer_tells(random_id(number), Address("192.0.2.9", 1000 + number))
        world.now += 1.0
    assert len(world.table) == 64
    assert world.table.of_node(HIGH) is not None, "it is linked"
    assert str(ELSEWHERE) in world.table, "an operator named it"
    assert world.table.of_node(random_id(0)) is None
    assert not world.multicast(LOW), "what is only announced takes nobody's place"


def test_strangers_that_are_heard_no_more_are_forgotten():
    world = World()
    world.multicast()
    world.seed(ELSEWHERE)
    end = world.now + UNHEARD + MAX_DELAY
    while world.now < end:
        for candidate in world.take(1.0):
            world.end(candidate, UNREACHABLE)
    assert [c.key for c in world.table.candidates()] == [str(ELSEWHERE)]


def test_what_worked_is_dialled_for_a_day():
    world = World()
    world.multicast()
    world.dial(world.linked())
    world.down(HIGH)
    began = world.now
    dials = 0
    while len(world.table):
        world.now = world.table.deadline(world.now)
        for candidate in world.take():
            world.end(candidate, UNREACHABLE)
            dials += 1
    assert GIVE_UP <= world.now - began <= GIVE_UP + MAX_DELAY
    assert dials <= GIVE_UP / (MAX_DELAY / 2) + 20


@pytest.mark.parametrize(("gone", "soon"), [(0.5, 1.0), (8.0, 1.0), (30.0, 4.0), (80.0, 10.0), (3_600.0, MAX_DELAY)])
@pytest.mark.parametrize("dial", [0.0, 2.0], ids=["refused", "hangs"])
def test_who_was_lost_for_a_short_time_is_found_again_soon(gone, soon, dial):
    world = World()
    world.multicast()
    world.dial(world.linked())
    world.now += 60.0
    world.down(HIGH)
    world.unreachable_for(gone, dial)
    _, waited = world.dial(world.linked())
    assert waited <= soon


def test_it_costs_little_to_be_quick():
    world = World()
    world.multicast()
    world.dial(world.linked())
    world.now += 60.0
    world.down(HIGH)
    dials = world.unreachable_for(30.0)
    assert len(dials) <= 40
    assert len([at for at in dials if at >= 8.0]) <= 24


def test_a_dial_that_hangs_is_part_of_the_wait_and_never_followed_at_once():
    world = World()
    world.multicast()
    world.dial(world.linked())
    world.now += 60.0
    world.down(HIGH)
    dials = world.unreachable_for(20.0, dial=2.0)
    pauses = [later - earlier - 2.0 for earlier, later in pairwise(dials)]
    assert min(pauses) >= 0.05
    assert max(pauses) <= 0.75


def test_who_never_was_linked_is_not_dialled_so_often():
    world = World()
    world.seed()
    assert len(world.unreachable_for(300.0)) <= 30


def test_links_that_do_not_last_are_no_reason_to_hurry():
    world = World()
    world.multicast()
    for _ in range(12):
        world.dial(world.linked())
        world.down(HIGH)
    _, waited = world.dial()
    assert waited >= MAX_DELAY / 2
    world.now += 1.0
    world.dial(world.linked())
    world.now += 60.0
    world.down(HIGH)
    _, waited = world.dial()
    assert waited <= 0.1, "one that lasted makes up for them"


def test_one_that_is_told_of_while_it_is_linked_counts_as_proven():
    world = World()
    world.links.add(HIGH)
    world.peer_tells()
    world.now += 60.0
    assert world.take() == []
    world.down(HIGH)
    world.unreachable_for(30.0)
    _, waited = world.dial(world.linked())
    assert waited <= 4.0


def test_who_is_not_wanted_is_put_off_and_looked_at_again():
    world = World()
    world.unwanted.add(HIGH)
    world.multicast()
    assert world.take() == []
    (candidate,) = world.table.candidates()
    assert candidate.last is not None
    assert (candidate.last.outcome, candidate.attempts, candidate.failures) == ("not-wanted", 0, 0)
    assert world.take(LOOK_AGAIN / 2 - 1.0) == []
    world.unwanted.clear()
    assert world.take(LOOK_AGAIN / 2 + 1.0) == [candidate]


def test_who_is_not_wanted_takes_nothing_from_the_budget_of_others():
    world = World(Limits(announced_dials=2, announced_rate=1.0, announced_burst=2.0))
    for number in range(500):
        world.unwanted.add(random_id(number))
        world.multicast(random_id(number))
    world.multicast(HIGH, ELSEWHERE)
    assert [c.expected for c in world.take()] == [HIGH]


def test_who_is_told_of_again_is_looked_at_soon():
    world = World()
    world.unwanted.add(HIGH)
    world.peer_tells()
    assert world.take() == []
    world.unwanted.clear()
    assert not world.multicast(), "anybody can say so: it waits for its turn"
    assert world.take() == []
    assert not world.peer_tells()
    assert len(world.take()) == 1


def test_being_told_of_again_does_not_shorten_the_pause_after_failures():
    world = World()
    world.peer_tells()
    for _ in range(8):
        world.dial()
    due = world.table.deadline(world.now)
    for _ in range(100):
        world.peer_tells()
    assert world.table.deadline(world.now) == due


def test_an_address_whose_node_is_not_known_is_always_wanted():
    world = World()
    world.unwanted.add(NOBODY)
    world.seed()
    world.dial()


def test_forgetting_one_that_is_being_dialled():
    world = World()
    world.seed()
    (candidate,) = world.take()
    world.table.drop(str(AT))
    world.end(candidate, world.linked())
    assert len(world.table) == 0
    assert world.table.deadline(world.now) == math.inf


def test_a_bucket_refills():
    bucket = Bucket(2.0, 3.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait(0.0) == pytest.approx(0.5)
    assert bucket.take(0.5)
    assert not bucket.take(0.5)
    assert bucket.wait(0.25) >= 0.0, "a clock that stands still is no error"
