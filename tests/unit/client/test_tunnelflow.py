"""Tunnels as two flows: credit, boundaries, half-close, and ends that are what they say."""

from __future__ import annotations

from collections import deque
from functools import partial
from random import Random
from typing import Any

import pytest

from iris_client import TooLarge, TunnelBroken
from iris_client._frames import Kind, decode_batch, make
from iris_client._model import DATA_BYTES, KiB
from iris_client._outbox import Outbox
from iris_client._tunnelcall import tunnel_frame
from iris_client._tunnelflow import (
    DATA_COST,
    FIRST_WINDOW,
    LARGEST_WINDOW,
    LONGEST_DATA,
    SEND_BUFFER_BYTES,
    SMALLEST_WINDOW,
    TURN_BYTES,
    Budget,
    TunnelFlow,
)
from tests.unit.client.ground import MiB


class End:
    """One end: a flow, its session, and what it sent."""

    def __init__(self, max_body: int = 8 * MiB, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self.urgent: deque[Any] = deque()
        self.waiting = False
        self.forgotten = 0
        self.changes = 0
        self.flow = TunnelFlow(self, self.budget, self.budget.first(), max_body, "tunnel")
        self.flow.id = 1
        self.flow.on_change = self.changed
        self.most_credit = 0

    def changed(self) -> None:
        self.changes += 1

    def push_for(self, flow: TunnelFlow, header: Any) -> None:
        self.urgent.append(header)

    def offer_flow(self, flow: TunnelFlow) -> None:
        assert not self.waiting, "offered twice"
        self.waiting = True

    def forget_flow(self, flow: TunnelFlow) -> None:
        self.forgotten += 1

    def say(self) -> list[tuple[Any, bytes]]:
        """One turn's worth of frames."""
        frames: list[tuple[Any, bytes]] = [(header, b"") for header in self.urgent]
        self.urgent.clear()
        if self.waiting:
            self.waiting = False
            chunks: list[bytes] = []
            self.flow.pull(chunks, 0.0)
            frames += decode_batch(b"".join(chunks))
        return frames

    def hear(self, header: Any, body: bytes = b"") -> None:
        if header.kind == Kind.ERROR:
            self.flow.fail(TunnelBroken(header.detail))
        else:
            tunnel_frame(self.flow, header.kind, header, body)

    def read(self) -> list[bytes]:
        messages = []
        while (message := self.flow.receive()) is not None:
            messages.append(message)
        return messages


def exchange(a: End, b: End, *, read: bool = False) -> dict[End, list[bytes]]:
    """Carry frames both ways until neither end has anything to say."""
    got: dict[End, list[bytes]] = {a: [], b: []}
    while True:
        spoken = False
        for here, there in ((a, b), (b, a)):
            for header, body in here.say():
                spoken = True
                assert len(body) <= LONGEST_DATA
                there.hear(header, body)
            if read:
                got[there] += there.read()
        if not spoken and not (read and (a.urgent or b.urgent)):
            return got


def opened(**options: Any) -> tuple[End, End]:
    opener, member = End(**options), End(**options)
    member.flow.accept()
    opener.flow.accept()
    exchange(opener, member)
    return opener, member


MESSAGES = [b"", b"x", b"y" * DATA_BYTES, b"z" * (DATA_BYTES + 1), b"w" * (3 * MiB), b"", b"end"]


def test_boundaries_are_kept_whatever_the_size():
    opener, member = opened()
    for message in MESSAGES:
        opener.flow.send(message)
        member.flow.send(message[::-1])
    got = exchange(opener, member, read=True)
    assert got[member] == MESSAGES
    assert got[opener] == [message[::-1] for message in MESSAGES]


def test_nothing_is_sent_before_there_is_credit():
    opener = End()
    opener.flow.send(b"x")
    assert opener.say() == []
    opener.hear(make(kind=Kind.CREDIT, count=DATA_COST))
    assert opener.say() == []
    opener.hear(make(kind=Kind.CREDIT, count=1))
    [(header, body)] = opener.say()
    assert (header.kind, body, header.more) == (Kind.DATA, b"x", False)


def test_an_empty_message_costs_what_a_frame_costs():
    opener = End()
    opener.flow.send(b"")
    opener.flow.send(b"")
    opener.hear(make(kind=Kind.CREDIT, count=DATA_COST))
    assert [body for _, body in opener.say()] == [b""]
    assert opener.say() == []


def test_a_reader_that_does_not_read_stops_its_writer():
    opener, member = opened()
    for _ in range(5000):
        opener.flow.send(b"x" * 1000)
    exchange(opener, member)
    held = len(member.flow._messages) * (1000 + DATA_COST)
    assert FIRST_WINDOW - 1100 < held <= FIRST_WINDOW
    assert not opener.flow.room
    assert len(exchange(opener, member, read=True)[member]) == 5000
    assert opener.flow.room


def test_credit_is_given_back_by_a_quarter_of_the_window():
    opener, member = opened()
    for _ in range(200):
        opener.flow.send(b"x" * 1000)
    exchange(opener, member)
    quarter = -(-FIRST_WINDOW // 4 // (1000 + DATA_COST))  # in messages
    for _ in range(2):
        for _ in range(quarter - 1):
            member.flow.receive()
            assert member.say() == []
        member.flow.receive()
        [(header, _)] = member.say()
        assert header.kind == Kind.CREDIT and header.count >= FIRST_WINDOW // 4
        quarter = -(-member.flow._window // 4 // (1000 + DATA_COST))  # it has grown


def test_a_window_grows_for_an_app_that_waits_and_never_above_the_bound():
    opener, member = opened()
    for _ in range(20):
        opener.flow.send(b"x" * (512 * KiB))
    exchange(opener, member, read=True)
    assert member.flow._window == LARGEST_WINDOW
    assert member.flow._granted <= LARGEST_WINDOW
    assert opener.flow._window == FIRST_WINDOW


def test_all_windows_together_stay_within_the_budget():
    budget = Budget(2 * FIRST_WINDOW)
    assert [budget.first() for _ in range(6)] == [FIRST_WINDOW] + 4 * [SMALLEST_WINDOW] + [0]
    assert budget.more(1) == 0
    budget.ended(SMALLEST_WINDOW)
    assert (budget.first(), budget.first()) == (SMALLEST_WINDOW, 0)


def test_tunnels_that_grew_leave_room_for_new_ones():
    """Those that were fast once keep their windows while they are open: half of all is for those to come."""
    budget = Budget()
    grown = [budget.first() + budget.more(LARGEST_WINDOW - FIRST_WINDOW) for _ in range(100)]
    assert grown[0] == LARGEST_WINDOW
    assert sum(grown) <= 64 * MiB
    assert min(grown) == SMALLEST_WINDOW, "the last of them began small, and did not grow"
    assert all(budget.first() for _ in range(400))


def test_a_mesh_holds_hundreds_of_tunnels_that_do_not_grow():
    budget = Budget()
    count = 0
    while budget.first():
        count += 1
    assert count == 128 + 512


def test_a_share_is_of_as_many_as_there_are():
    budget = Budget()
    assert budget.share == LARGEST_WINDOW
    windows = [budget.first() for _ in range(128)]
    assert budget.share == FIRST_WINDOW
    windows += [budget.first() for _ in range(512)]
    assert budget.share == SMALLEST_WINDOW
    for window in windows:
        budget.ended(window)
    assert budget.share == LARGEST_WINDOW


def test_a_large_window_shrinks_to_its_share_when_others_have_come():
    budget = Budget(4 * MiB)
    opener, member = End(), End(budget=budget)
    member.flow.accept()
    opener.flow.accept()

    def move(size: int) -> None:
        for _ in range(size // 50_000):
            opener.flow.send(bytes(50_000))
            exchange(opener, member)
            assert member.flow.receive() is not None
            exchange(opener, member)

    move(4 * MiB)
    assert member.flow._window == LARGEST_WINDOW
    others = [budget.first() for _ in range(15)]
    assert budget.share == 2 * MiB // 16
    move(4 * MiB)
    assert member.flow._window == 2 * MiB // 16
    assert opener.flow._credit <= 2 * MiB // 16
    for window in others:
        budget.ended(window)
    move(4 * MiB)
    assert member.flow._window == LARGEST_WINDOW
    member.flow.abort("over")
    assert budget._left == 4 * MiB and budget._windows == 0


def test_the_budget_gets_its_windows_back():
    budget = Budget(FIRST_WINDOW)
    ends = [End(budget=budget) for _ in range(4)]
    assert budget.first() == 0
    for end in ends:
        end.flow.abort("over")
    assert budget.first() == SMALLEST_WINDOW


def test_half_close():
    opener, member = opened()
    opener.flow.send(b"question")
    opener.flow.finish()
    exchange(opener, member)
    assert opener.flow.sent
    assert member.flow.clean
    assert member.flow.receive() == b"question"
    assert not opener.flow.clean
    member.flow.send(b"answer")
    member.flow.finish()
    exchange(opener, member)
    assert opener.flow.receive() == b"answer"
    assert opener.flow.clean
    assert opener.flow.over
    assert member.flow.over
    assert (opener.forgotten, member.forgotten) == (1, 1)
    assert opener.flow.broken is None
    assert member.flow.broken is None


def test_finish_waits_for_what_is_queued():
    opener = End()
    opener.flow.send(b"x")
    opener.flow.finish()
    assert opener.say() == []
    assert not opener.flow.sent
    opener.hear(make(kind=Kind.CREDIT, count=1000))
    assert [int(header.kind) for header, _ in opener.say()] == [Kind.DATA, Kind.FINISH]
    assert opener.flow.sent


def test_finish_needs_no_credit():
    opener = End()
    opener.flow.finish()
    opener.flow.finish()
    assert [int(header.kind) for header, _ in opener.say()] == [Kind.FINISH]


def test_an_abort_is_seen_at_both_ends_and_is_never_a_clean_end():
    opener, member = opened()
    opener.flow.send(b"whole")
    exchange(opener, member)
    opener.flow.send(b"never")
    opener.flow.abort("changed my mind")
    exchange(opener, member)
    assert isinstance(opener.flow.broken, TunnelBroken)
    assert isinstance(member.flow.broken, TunnelBroken)
    assert not member.flow.clean
    assert member.flow.receive() == b"whole"
    assert member.flow.receive() is None
    assert (opener.forgotten, member.forgotten) == (1, 1)


def test_after_the_end_nothing_breaks_any_more():
    opener, member = opened()
    opener.flow.finish()
    member.flow.finish()
    exchange(opener, member)
    opener.flow.fail(TunnelBroken("late"))
    opener.flow.abort("late")
    assert opener.flow.broken is None
    assert not opener.urgent


def test_an_end_that_reads_no_more_lets_the_other_finish():
    opener, member = opened()
    for _ in range(3):
        opener.flow.send(b"x" * MiB)
    exchange(opener, member)
    member.flow.finish()
    member.flow.discard()
    opener.flow.finish()
    exchange(opener, member)
    assert opener.flow.over
    assert member.flow.over
    assert member.flow.receive() is None


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([(make(kind=Kind.DATA), b"x" * (LONGEST_DATA + 1))], "limit is 262144"),
        ([(make(kind=Kind.DATA), b"x" * DATA_BYTES)] * 5, "more than its credit"),
        ([(make(kind=Kind.FINISH), b""), (make(kind=Kind.DATA), b"")], "after it had finished"),
        ([(make(kind=Kind.DATA, more=True), b"x"), (make(kind=Kind.FINISH), b"")], "middle of a message"),
    ],
)
def test_a_peer_that_breaks_the_rules_is_cut_off(frames: list[tuple[Any, bytes]], why: str):
    member = End()
    member.flow.accept()
    member.say()
    for header, body in frames:
        member.hear(header, body)
    assert why in str(member.flow.broken)
    assert [int(header.kind) for header, _ in member.say()][-1] == Kind.ERROR


def test_credit_is_counted_with_the_cost_of_frames():
    member = End()
    member.flow.accept()
    for _ in range(FIRST_WINDOW // DATA_COST):
        member.hear(make(kind=Kind.DATA))
    assert member.flow.broken is None
    member.hear(make(kind=Kind.DATA))
    assert "more than its credit" in str(member.flow.broken)


def test_messages_are_bounded_both_ways():
    opener, member = End(max_body=100_000), End(max_body=50_000)
    member.flow.accept()
    opener.flow.accept()
    exchange(opener, member)
    with pytest.raises(TooLarge, match="100001 bytes, the limit is 100000"):
        opener.flow.send(b"x" * 100_001)
    opener.flow.send(b"x" * 100_000)
    exchange(opener, member, read=True)
    assert "limit of 50000" in str(member.flow.broken)
    assert isinstance(opener.flow.broken, TunnelBroken)


def test_room_is_a_small_buffer():
    opener = End()
    sent = 0
    while opener.flow.room:
        opener.flow.send(b"x" * 1000)
        sent += 1000 + DATA_COST
    assert SEND_BUFFER_BYTES <= sent < SEND_BUFFER_BYTES + 1100


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_events_keeps_every_message(seed: int):
    random = Random(seed)
    opener, member = opened()
    sent: dict[End, list[bytes]] = {opener: [], member: []}
    got: dict[End, list[bytes]] = {opener: [], member: []}
    wires: dict[End, deque[tuple[Any, bytes]]] = {opener: deque(), member: deque()}
    other = {opener: member, member: opener}
    for _ in range(600):
        end = random.choice((opener, member))
        action = random.randrange(4)
        if action == 0 and end.flow.room and not end.flow.finishing:
            message = random.randbytes(random.choice((0, 1, 100, 5000, 70_000, 400_000)))
            sent[end].append(message)
            end.flow.send(message)
        elif action == 1:
            wires[end].extend(end.say())
        elif action == 2 and wires[other[end]]:
            end.hear(*wires[other[end]].popleft())
        elif action == 3 and (message := end.flow.receive() or b"") and message:
            got[end].append(message)
    for end in (opener, member):
        end.flow.finish()
    for _ in range(100_000):
        moved = False
        for end in (opener, member):
            said = end.say()
            wires[end].extend(said)
            moved = moved or bool(said) or bool(wires[end])
            while wires[end]:
                other[end].hear(*wires[end].popleft())
            got[other[end]] += [message for message in other[end].read() if message]
        if not moved:
            break
    for end in (opener, member):
        assert end.flow.broken is None
        assert end.flow.over
        assert got[end] == [message for message in sent[other[end]] if message]


# ------------------------------------------------------------ several messages in one DATA


def datas(frames: list[tuple[Any, bytes]]) -> list[tuple[list[int], int]]:
    """What each DATA holds: the sizes it states, and its length."""
    return [(list(header.sizes), len(body)) for header, body in frames if header.kind == Kind.DATA]


def test_messages_that_wait_leave_together():
    opener, member = opened()
    for message in (b"a", b"", b"ccc"):
        opener.flow.send(message)
    said = opener.say()
    assert datas(said) == [([1, 0, 3], 4)]
    for header, body in said:
        member.hear(header, body)
    assert member.read() == [b"a", b"", b"ccc"]
    assert member.flow._granted == FIRST_WINDOW - 4 - 3 * DATA_COST


def test_a_message_by_itself_leaves_as_ever():
    opener, _ = opened()
    opener.flow.send(b"alone")
    assert datas(opener.say()) == [([], 5)]


def test_an_end_that_does_not_say_so_gets_one_message_at_a_time():
    opener = End()
    opener.hear(make(kind=Kind.CREDIT, count=MiB))
    opener.flow.send(b"a")
    opener.flow.send(b"b" * DATA_BYTES + b"b")
    said = opener.say() + opener.say()
    assert datas(said) == [([], 1), ([], DATA_BYTES), ([], 1)]


def test_nothing_is_cut_for_want_of_credit_that_will_come():
    opener = End()
    opener.hear(make(kind=Kind.CREDIT, count=3 * DATA_BYTES, max_bytes=DATA_BYTES))
    for _ in range(3):
        opener.flow.send(b"x" * DATA_BYTES)
    assert datas(opener.say() + opener.say()) == [([], DATA_BYTES)] * 2
    assert not opener.waiting
    opener.hear(make(kind=Kind.CREDIT, count=3 * DATA_COST, max_bytes=DATA_BYTES))
    assert datas(opener.say()) == [([], DATA_BYTES)]


def test_a_message_longer_than_what_the_other_end_takes_goes_in_pieces_of_that():
    opener = End()
    opener.hear(make(kind=Kind.CREDIT, count=MiB, max_bytes=100_000))
    opener.flow.send(b"x" * 250_000)
    opener.flow.send(b"y")
    said = [frame for _ in range(3) for frame in opener.say()]
    piece = 100_000 - DATA_COST
    assert datas(said) == [([], piece), ([], piece), ([], 250_000 - 2 * piece), ([], 1)]


@pytest.mark.parametrize("longest", [0, 1, 32_704, DATA_BYTES - 1])
def test_an_end_that_takes_little_does_not_make_the_pieces_small(longest: int):
    opener = End()
    opener.hear(make(kind=Kind.CREDIT, count=MiB, max_bytes=longest))
    opener.flow.send(b"x" * (4 * DATA_BYTES))
    assert datas(opener.say()) == [([], DATA_BYTES)] * 4


def test_a_window_is_used_to_the_last_byte_by_a_long_message():
    opener, member = opened(budget=Budget(512 * MiB))
    member.flow._window = LARGEST_WINDOW
    member.flow._grant(LARGEST_WINDOW - FIRST_WINDOW)
    exchange(opener, member)
    opener.flow.send(b"x" * (2 * MiB))
    while opener.waiting:
        opener.say()
    assert opener.flow._credit == 0


def fill(flow: TunnelFlow) -> None:
    while flow.room:
        flow.send(b"x" * DATA_BYTES)


def test_flows_take_turns_whatever_the_other_end_takes():
    outbox = Outbox(lambda call: 1, lambda: None)
    flows = {}
    for id, longest in ((1, LONGEST_DATA), (2, 0), (3, 32_704)):
        flow = flows[id] = End().flow
        flow.id, flow._port = id, Sharing(outbox)
        flow.on_change = partial(fill, flow)
        flow.on_credit(100 * MiB, longest)
        flow.on_change()
    sent = dict.fromkeys(flows, 0)
    for _ in range(24):
        batch = outbox.take(LONGEST_DATA, 0.0)
        assert batch is not None
        assert sum(map(len, batch)) <= LONGEST_DATA + TURN_BYTES
        for header, body in decode_batch(b"".join(batch)):
            sent[header.id] += len(body)
    assert max(sent.values()) - min(sent.values()) <= LONGEST_DATA


class Sharing:
    """A session with one outbox for several flows."""

    def __init__(self, outbox: Outbox) -> None:
        self.offer_flow = outbox.offer

    def push_for(self, flow: TunnelFlow, header: Any) -> None:
        raise AssertionError("nothing but DATA")

    def forget_flow(self, flow: TunnelFlow) -> None:
        raise AssertionError("it goes on")


def test_a_window_that_shrank_is_told_even_if_nothing_is_granted():
    """Else the other end would wait for more credit than there will ever be."""
    budget = Budget(8 * MiB)
    member = End(budget=budget)
    opener = End()
    member.flow.accept()
    opener.flow.accept()
    exchange(opener, member)
    for _ in range(200):
        while opener.flow.room:
            opener.flow.send(b"x" * (1024 - DATA_COST))
        exchange(opener, member, read=True)
    assert member.flow._window == LARGEST_WINDOW
    others = [budget.first() for _ in range(70)]
    assert all(others)
    while member.flow._window > SMALLEST_WINDOW:  # what was taken makes up for exactly what has to be given back
        opener.flow.send(b"x" * (1024 - DATA_COST))
        assert exchange(opener, member, read=True)[member]
    opener.flow.send(b"x" * DATA_BYTES)
    assert exchange(opener, member, read=True)[member] == [b"x" * DATA_BYTES]


@pytest.mark.parametrize(
    ("header", "body", "why"),
    [
        (make(kind=Kind.DATA, sizes=[1, 2]), b"four", "sizes"),
        (make(kind=Kind.DATA, sizes=[0] * 5000), b"", "more than its credit"),
        (make(kind=Kind.DATA, sizes=[1, 1], more=True), b"ab", "in the middle of one"),
        (make(kind=Kind.DATA, sizes=[1, 50_001]), b"x" * 50_002, "limit of 50000"),
    ],
)
def test_several_messages_that_break_the_rules(header: Any, body: bytes, why: str):
    member = End(max_body=50_000)
    member.flow.accept()
    member.hear(header, body)
    assert why in str(member.flow.broken)


def test_several_messages_do_not_come_in_the_middle_of_one():
    member = End()
    member.flow.accept()
    member.hear(make(kind=Kind.DATA, more=True), b"begun")
    member.hear(make(kind=Kind.DATA, sizes=[1, 1]), b"ab")
    assert "in the middle of one" in str(member.flow.broken)
