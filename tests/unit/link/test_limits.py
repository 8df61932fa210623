"""Limits: what strangers may cost, in places and in processor time."""

from __future__ import annotations

import pytest

from irisd.link.limits import MAX_HOSTS, HandshakeLimits, Limits, Repeats, host_of


def test_the_oldest_of_a_host_makes_room() -> None:
    limits = HandshakeLimits(Limits(half_open=10, half_open_per_host=2))
    assert [limits.opened(number, "a") for number in (1, 2, 3, 4)] == [None, None, 1, 2]
    assert limits.half_open == 2
    assert limits.opened(5, "b") is None


def test_the_oldest_of_all_makes_room() -> None:
    limits = HandshakeLimits(Limits(half_open=3, half_open_per_host=2))
    for number, host in ((1, "a"), (2, "b"), (3, "c")):
        limits.opened(number, host)
    assert limits.opened(4, "d") == 1
    assert limits.opened(5, "a") == 2
    assert limits.half_open == 3


def test_who_is_proven_frees_a_place() -> None:
    limits = HandshakeLimits(Limits(half_open=2, half_open_per_host=1))
    limits.opened(1, "a")
    limits.closed(1)
    limits.closed(1)  # once is enough, twice does no harm
    assert limits.half_open == 0
    assert limits.opened(2, "a") is None
    assert limits._half_open_by_host.keys() == {"a"}


def test_a_budget_is_used_up_and_comes_back() -> None:
    limits = HandshakeLimits(Limits(share=0.2, share_per_host=0.1, burst=0.6))
    assert limits.admits("a", 10.0)
    limits.charge("a", 0.25, 10.0)
    assert not limits.admits("a", 10.0)  # a third of the burst per host
    assert limits.admits("b", 10.0)
    assert not limits.admits("a", 10.4)
    assert limits.admits("a", 10.6)  # 0.05 s overdrawn, 0.1 s per second


def test_the_budget_of_all() -> None:
    limits = HandshakeLimits(Limits(share=0.2, share_per_host=0.1, burst=0.6))
    for number in range(4):
        limits.charge(f"host{number}", 0.16, 10.0)
    assert limits.admits("host9", 10.0) is False
    assert limits.admits("host9", 10.5)


def test_an_overdraft_is_bounded() -> None:
    limits = HandshakeLimits(Limits(share=1.0, share_per_host=1.0, burst=0.6))
    limits.charge("a", 1_000.0, 10.0)
    assert not limits.admits("a", 10.5)
    assert limits.admits("a", 11.0)


def test_time_that_goes_backwards_gives_nothing() -> None:
    limits = HandshakeLimits(Limits(burst=0.6))
    limits.charge("a", 0.25, 10.0)
    assert not limits.admits("a", 5.0)


def test_hosts_remembered_are_bounded() -> None:
    limits = HandshakeLimits()
    for number in range(MAX_HOSTS + 100):
        limits.admits(f"host{number}", 1.0)
    assert len(limits._budget_by_host) == MAX_HOSTS
    assert "host0" not in limits._budget_by_host


@pytest.mark.parametrize(
    ("ip", "host"),
    [
        ("10.0.3.7", "10.0.3.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.0.3.7", "10.0.3.7"),
        ("::1", "::/64"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_hosts(ip: str, host: str) -> None:
    assert host_of(ip) == host


def test_repeats_are_counted_and_told_once_a_second() -> None:
    repeats = Repeats()
    assert [repeats.count(at, "a", "x") for at in (0.0, 0.1, 0.9)] == [1, 0, 0]
    assert repeats.count(0.5, "b", "x") == 1
    assert repeats.count(1.0, "a", "x") == 3
    assert repeats.count(1.5, "a", "x") == 0


def test_repeats_remember_so_many() -> None:
    repeats = Repeats(capacity=2)
    for name in "abc":
        repeats.count(0.0, name)
    assert repeats.count(0.1, "a") == 1  # forgotten, so it is news
    assert repeats.count(0.1, "c") == 0
