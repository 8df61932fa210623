from __future__ import annotations

from irisd.model import Executed, Frame, Kind
from irisd.router import Call, CallState, Tunnel


def call() -> Call:
    return Call(1, 3, True, Frame(Kind.REQUEST, id=3), "db", 5.0)


def test_a_call_has_not_run_until_a_byte_of_it_left():
    one = call()
    said = [one.executed]
    one.attempt = Frame(Kind.REQUEST, id=2)
    said.append(one.executed)
    one.attempt.sent = True
    said.append(one.executed)
    assert said == [Executed.NO, Executed.NO, Executed.MAYBE]
    assert one.state is CallState.WAITING


def test_an_earlier_attempt_is_not_forgotten():
    one = call()
    one.exposed = True
    one.attempt = Frame(Kind.REQUEST, id=2)
    assert one.executed is Executed.MAYBE


def test_calls_are_themselves_and_nobody_else():
    assert call() != call()
    assert len({call(), call()}) == 2


def test_the_ends_of_a_tunnel():
    tunnel = Tunnel(((1, 7), (1, 2)), "db")  # an app that talks to itself
    assert [tunnel.end_of(1, 7), tunnel.end_of(1, 2)] == [0, 1]
    assert (tunnel.credit, tunnel.finished) == ([0, 0], [False, False])
