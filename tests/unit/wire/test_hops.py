"""What a node says of a choice, as bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irisd.status import TraceCandidate, TraceHop
from irisd.wire import MAX_CANDIDATES, WireError, decode_hop, encode_hop

HOP = TraceHop(
    "oak",
    "aa",
    "members",
    policy="p2c",
    candidates=(TraceCandidate("db@oak/aa.1", slots=8, busy=2.5, ejected=True, handles=False), TraceCandidate("x")),
    count=2,
    chosen="x",
    took=0.25,
)


def test_what_is_as_ever_is_not_said():
    assert json.loads(encode_hop(HOP)) == {
        "name": "oak",
        "node": "aa",
        "among": "members",
        "policy": "p2c",
        "count": 2,
        "chosen": "x",
        "took": 0.25,
        "candidates": [
            {"name": "db@oak/aa.1", "slots": 8, "busy": 2.5, "ejected": True, "handles": False},
            {"name": "x"},
        ],
    }


def test_it_arrives_as_it_was():
    assert decode_hop(encode_hop(HOP)) == HOP


def test_what_a_later_release_says_besides_is_ignored():
    assert decode_hop(b'{"name":"oak","weather":[1],"candidates":[{"mood":"good"}]}') == TraceHop(
        "oak", candidates=(TraceCandidate(""),)
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"{",
        b'{"name":7}',
        b'{"count":-1}',
        b'{"count":4294967296}',
        b'{"count":true}',
        b'{"took":Infinity}',
        b'{"took":NaN}',
        b'{"took":"1"}',
        b'{"why":"\\ud800"}',
        b"\xff",
        b'{"candidates":{}}',
        b'{"candidates":[1]}',
        b'{"candidates":[{"drawn":1}]}',
        b'{"why":"' + b"y" * 1001 + b'"}',
        b"[" * 60_000,
        b" " * 70_000,
        json.dumps({"candidates": [{}] * (MAX_CANDIDATES + 1)}).encode(),
    ],
)
def test_what_is_no_hop(body):
    with pytest.raises(WireError, match=r"^TRACED: "):
        decode_hop(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.sampled_from(["name", "candidates", "x"]), some),
    max_leaves=8,
)
NAMES = st.sampled_from(["name", "count", "took", "candidates", "why", "outcome", "x"])


@given(st.dictionaries(NAMES, JSON) | JSON)
def test_anything_is_a_hop_or_one_error(said):
    try:
        hop = decode_hop(json.dumps(said).encode())
    except WireError:
        return
    assert decode_hop(encode_hop(hop)) == hop
