"""Which interfaces are used."""

from __future__ import annotations

import pytest

from irisd.discovery.interfaces import MAX_INTERFACES, Interface, choose, host_interfaces

LO = Interface("lo", 1, ("127.0.0.1",), ("::1",))
ETH = Interface("eth0", 2, ("192.0.2.7",), ("2001:db8::7", "fe80::7"))
VETH = Interface("veth1", 3, (), ("fe80::1",))


def names(chosen: list[Interface]) -> list[str]:
    return [interface.name for interface in chosen]


def test_all_that_lead_out_by_default():
    assert choose([LO, ETH, VETH], (), loopback=False) == ([ETH], "")
    assert names(choose([LO, VETH], (), loopback=False)[0]) == ["veth1"], "link-local is better than nothing"
    many = [Interface(f"e{n}", n, (f"192.0.2.{n}",)) for n in range(40)]
    assert len(choose(many, (), loopback=False)[0]) == MAX_INTERFACES
    assert choose([LO], (), loopback=False) == ([], "no interface but loopback has an address")


def test_loopback_only_when_links_stay_there():
    chosen, problem = choose([LO, ETH], (), loopback=True)
    assert chosen == [Interface("lo", 1, ("127.0.0.1",))]
    assert problem == ""
    assert choose([ETH], (), loopback=True) == ([], "the loopback interface has no address 127.0.0.1")


@pytest.mark.parametrize(
    ("word", "interface"),
    [
        ("eth0", ETH),
        ("192.0.2.7", Interface("eth0", 2, ("192.0.2.7",))),
        ("2001:db8::7", Interface("eth0", 2, (), ("2001:db8::7",))),
        ("fe80::7%eth0", Interface("eth0", 2, (), ("fe80::7",))),
        ("127.0.0.1", Interface("lo", 1, ("127.0.0.1",))),
    ],
)
def test_pinned_by_name_or_address(word, interface):
    assert choose([LO, ETH], (word,), loopback=True) == ([interface], "")


def test_what_is_pinned_and_missing_is_named():
    chosen, problem = choose([LO, ETH], ("eth0", "wlan0"), loopback=False)
    assert chosen == [ETH]
    assert problem == "there is no interface wlan0 here; there is: eth0, lo"


def test_link_local_addresses_are_announced_only_where_there_is_nothing_else():
    assert ETH.addresses == ("192.0.2.7", "2001:db8::7")
    assert VETH.addresses == ("fe80::1",)


def test_this_host_has_a_loopback_interface():
    assert any("127.0.0.1" in interface.ipv4 and interface.is_loopback for interface in host_interfaces())
