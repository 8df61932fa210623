"""Candidates: when which is dialled, what strangers may cost, what is forgotten when."""

from __future__ import annotations

import math
from random import Random

import pytest

from irisd.config import Address
from irisd.discovery.table import (
    GIVE_UP,
    HOLD_BACK,
    MAX_DELAY,
    NOBODY,
    UNHEARD,
    Attempted,
    Bucket,
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
        self.table = Table(OWN, self.links.__contains__, Random(7), limits)
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
