"""Calls that wait for the next stream."""

from __future__ import annotations

import math

from iris_client._calls import Call
from iris_client._frames import Kind, make
from iris_client._held import Held


def call(body: bytes = b"") -> Call:
    return Call(make(kind=Kind.REQUEST), body, math.inf, "call")


def test_in_order_and_counted():
    woken: list[int] = []
    held = Held(lambda: woken.append(len(held)))
    one, two, other = call(b"12"), call(b"3"), call()
    for each in (one, two, other):
        held.add(each)
    assert woken == [1]  # once: somebody waits
    assert (len(held), held.bytes, list(held)) == (3, 3, [one, two, other])
    held.discard(one)
    held.discard(one)
    assert (len(held), held.bytes) == (2, 1)
    assert held.take() == [two, other]
    assert (len(held), held.bytes) == (0, 0)
    held.add(one)
    assert woken == [1, 1]
