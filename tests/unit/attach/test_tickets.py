"""Tickets: good once, for five seconds, for one user; and never many."""

from __future__ import annotations

import pytest

from irisd.attach.tickets import LIFETIME, MAX_TICKETS, Refusal, Tickets

TICKET = b"0123456789abcdef"
USER = 1000


@pytest.fixture
def tickets() -> Tickets[str]:
    tickets: Tickets[str] = Tickets()
    tickets.issue(TICKET, "app", USER, 100.0)
    return tickets


def test_a_ticket_lets_its_holder_in(tickets):
    assert tickets.redeem(TICKET, USER, 100.0 + LIFETIME) == "app"


def test_a_ticket_is_good_once(tickets):
    tickets.redeem(TICKET, USER, 100.0)
    assert tickets.redeem(TICKET, USER, 100.0) is Refusal.UNKNOWN


def test_a_ticket_is_good_for_five_seconds(tickets):
    assert LIFETIME == 5.0
    assert tickets.redeem(TICKET, USER, 105.001) is Refusal.LATE


def test_another_users_ticket_lets_nobody_in_and_is_used_up(tickets):
    assert tickets.redeem(TICKET, 0, 100.0) is Refusal.OTHER_USER
    assert tickets.redeem(TICKET, USER, 100.0) is Refusal.UNKNOWN


@pytest.mark.parametrize("wrong", [b"", TICKET[:-1], TICKET[:-1] + b"x", TICKET + b"x", bytes(16)])
def test_what_is_nearly_a_ticket_is_none(tickets, wrong):
    assert tickets.redeem(wrong, USER, 100.0) is Refusal.UNKNOWN
    assert tickets.redeem(TICKET, USER, 100.0) == "app"


def test_tickets_nobody_came_with_are_forgotten(tickets):
    tickets.issue(b"later", "other", USER, 105.1)
    assert len(tickets) == 1
    assert tickets.redeem(TICKET, USER, 105.1) is Refusal.UNKNOWN


def test_there_are_never_many_and_the_oldest_goes():
    tickets: Tickets[int] = Tickets()
    for number in range(MAX_TICKETS + 2):
        tickets.issue(b"%d" % number, number, USER, 0.0)
    assert len(tickets) == MAX_TICKETS
    assert tickets.redeem(b"1", USER, 0.0) is Refusal.UNKNOWN
    assert tickets.redeem(b"2", USER, 0.0) == 2
    assert tickets.redeem(b"%d" % (MAX_TICKETS + 1), USER, 0.0) == MAX_TICKETS + 1
