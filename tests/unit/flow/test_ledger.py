from __future__ import annotations

from irisd.flow import Ledger
from irisd.flow.ledger import ACK_EVERY, MAX_TOPICS

A, B, G = ("a", ""), ("b", ""), ("a", "group")


def test_what_was_not_acknowledged_is_lost_with_the_link():
    ledger = Ledger()
    assert [ledger.sending(A, 2), ledger.sending(B, 1), ledger.sending(A, 5), ledger.sending(G, 1)] == [1, 2, 3, 4]
    ledger.acknowledge(2)
    assert ledger.unacknowledged == 2
    assert ledger.relinked(3) == [(G, 1)]
    assert ledger.relinked(3) == []


def test_losses_before_and_at_the_link_add_up():
    ledger = Ledger()
    ledger.sending(A, 2)
    ledger.lose(A, 10)
    ledger.lose(B, 1)
    assert dict(ledger.relinked(0)) == {A: 12, B: 1}


def test_numbers_rise_across_links():
    ledger = Ledger()
    ledger.sending(A, 1)
    ledger.relinked(0)
    assert ledger.sending(A, 1) == 2
    assert ledger.sent == 2


def test_the_receiver_takes_each_number_once():
    ledger = Ledger()
    assert [ledger.receive(seq) for seq in (1, 2, 2, 1, 5, 4, 6, 0)] == [
        True,
        True,
        False,
        False,
        True,
        False,
        True,
        False,
    ]
    assert ledger.received == 6


def test_the_receiver_acknowledges_now_and_then():
    ledger = Ledger()
    told = [ledger.acknowledgement() for seq in range(1, 3 * ACK_EVERY + 1) if ledger.receive(seq)]
    assert [last for last in told if last is not None] == [ACK_EVERY, 2 * ACK_EVERY, 3 * ACK_EVERY]


def test_a_sender_that_forgot_begins_anew_and_is_heard():
    """It forgot this node while this node still remembered it: its low numbers are no duplicates."""
    sender, receiver = Ledger(), Ledger()
    for _ in range(100):
        assert receiver.receive(sender.sending(A, 1))
    receiver.acknowledgement()
    sender = Ledger()
    assert not receiver.resumed(sender.sent)
    assert [receiver.receive(sender.sending(A, 1)) for _ in range(ACK_EVERY)] == [True] * ACK_EVERY
    assert receiver.acknowledgement() == ACK_EVERY


def test_a_sender_that_remembers_goes_on():
    receiver = Ledger()
    receiver.receive(7)
    assert receiver.resumed(7)
    assert receiver.resumed(9)
    assert receiver.received == 7
    assert not receiver.receive(7)
    assert receiver.receive(10)


def test_losses_of_too_many_topics_are_told_as_one():
    ledger = Ledger()
    for n in range(MAX_TOPICS + 10):
        ledger.lose((f"t{n}", ""), 1)
    ledger.lose(("t0", ""), 1)
    lost = dict(ledger.relinked(0))
    assert len(lost) == MAX_TOPICS + 1
    assert lost["", ""] == 10
    assert lost["t0", ""] == 2


def test_what_left_over_the_new_link_before_the_other_side_spoke_is_under_way():
    ledger = Ledger()
    ledger.sending(("t", ""), 2)
    before = ledger.sent
    ledger.sending(("t", ""), 3)
    ledger.sending(("u", ""), 1)
    assert ledger.relinked(0, before) == [(("t", ""), 2)]
    assert ledger.unacknowledged == 2
    assert ledger.relinked(2) == [(("u", ""), 1)]
