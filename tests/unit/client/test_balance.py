from __future__ import annotations

from typing import Any

import pytest

import iris_client as iris
from iris_client import _balance
from iris_client._frames import Kind, make


def header(**options: object):
    made = make(kind=Kind.REQUEST)
    _balance.balanced(made, options.get("balance"), options.get("key"))  # type: ignore[arg-type]
    return made


def test_names_are_those_of_the_proto():
    from iris_proto.v1 import frame_pb2 as pb

    assert {f"BALANCE_{name.upper()}": number for name, number in _balance.BALANCES.items()} == {
        name: number for name, number in pb.Balance.items() if number
    }


def test_a_key_means_hash():
    assert header(key="customer-7").key == "customer-7"
    assert header(key="customer-7", balance="hash").balance == 4
    assert header(balance="local").balance == 5
    assert header().balance == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"balance": "nearest"}, "p2c, round_robin"),
        ({"balance": 3}, "p2c, round_robin"),
        ({"balance": "hash"}, "needs a key"),
        ({"balance": "random", "key": "k"}, "a key means hash"),
        ({"key": ""}, "not empty"),
        ({"key": 7}, "not empty"),
        ({"key": "k" * 1025}, "1024 bytes, this one has 1025"),
        ({"key": "k" * (1 << 20)}, "1024 bytes"),
        ({"key": "\ud800"}, "UTF-8"),
    ],
)
def test_what_makes_no_sense(options, word):
    with pytest.raises(iris.InvalidCall, match=word) as caught:
        header(**options)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 3601, True, "1"])
def test_a_hedge_needs_a_time(seconds):
    made = make(kind=Kind.REQUEST, idempotent=True)
    with pytest.raises(iris.InvalidCall, match="hedge_after"):
        _balance.hedged(made, seconds)


def test_a_hedge_needs_an_idempotent_request():
    with pytest.raises(iris.InvalidCall, match="idempotent=True"):
        _balance.hedged(make(kind=Kind.REQUEST), 0.1)
    made = make(kind=Kind.REQUEST, idempotent=True)
    _balance.hedged(made, 0.00001)
    assert made.hedge_ms == 1


@pytest.mark.parametrize("options", [{"balance": "fair"}, {"priority": -1}, {"priority": 256}, {"priority": True}])
def test_a_cluster_says_how_it_is_balanced(options):
    with pytest.raises(iris.InvalidCall):
        iris.Cluster("db", **options)
    cluster = iris.Cluster("db", balance="round_robin", priority=255)
    assert (cluster.balance, cluster.priority) == (2, 255)


def echo_name(name: str, **options: object) -> iris.Cluster:
    cluster = iris.Cluster("db", **options)  # type: ignore[arg-type]

    @cluster.on_request
    async def tell(body: bytes) -> bytes:
        return name.encode()

    return cluster


async def who(mesh: iris.Mesh, **options: Any) -> str:
    """Who answers a request."""
    return (await mesh.request("db", **options)).body.decode()


async def test_a_key_stays_with_its_member_from_wherever_it_is_called(local):
    async with (
        local.connect(0) as one,
        local.connect(1) as two,
        one.join(echo_name("one")),
        two.join(echo_name("two")),
    ):
        for number in range(20):
            first = await who(one, key=f"k{number}")
            assert await who(two, key=f"k{number}") == first
        kept = {await who(one, key=f"k{number}") for number in range(20)}
        assert kept == {"one", "two"}


async def test_a_call_may_ask_for_its_own_node(local):
    async with (
        local.connect(0) as one,
        local.connect(1) as two,
        one.join(echo_name("one")),
        two.join(echo_name("two")),
    ):
        assert {await who(two, balance="local") for _ in range(10)} == {"two"}


async def test_a_lower_level_waits_for_its_turn(local):
    async with (
        local.connect(0) as one,
        local.connect(1) as two,
        two.join(echo_name("two", priority=1)),
    ):
        assert await who(one) == "two"
        async with one.join(echo_name("one")):
            assert {await who(two) for _ in range(10)} == {"one"}
        assert await who(one) == "two"
