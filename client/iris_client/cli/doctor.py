"""``iris doctor``: how the daemon looks for its peers, what came of it, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

from iris_client.cli.control import Control, ask_once
from iris_client.cli.options import Settings, examples, with_settings
from iris_client.cli.output import Cell, print_json, style, table
from iris_client.cli.tables import STATE_COLOURS, heard, nodes_json, slow
from iris_client.cli.values import count_of, printable, show_time
from iris_proto.v1 import control_pb2 as pb

ID_SHOWN: Final = 8
NAMED: Final = 8
HEARD_AT_MOST: Final = 128
"""Announcers a daemon remembers: with so many, one that is not among them may have been heard all the same."""
MOST_ABOUT_NODES: Final = 12
ROWS_SHOWN: Final = 24
"""Rows of a table for people; ``--json`` has all that the daemon tells."""

NOT_WANTED: Final = "not-wanted"
_GONE: Final = ("dead", "left", "joining")
_MULTICAST_COLOURS: Final = {"on": "green", "unavailable": "red", "starting": "yellow"}
_VERDICTS: Final = {
    "new": "ours, first heard",
    "known": "ours",
    "goodbye": "ours, said goodbye",
    "other-service": "another key",
    "other-version": "our key, another version",
    "malformed": "makes no sense",
    "out-of-reach": "ours, but no address leads there from our interfaces",
    "over-budget": "ours, but too many announce themselves at once",
}
_ADVICE: Final = {
    "wrong-key": "holds another key of the same name, or none: compare `irisd keys show` on both hosts",
    "wrong-version": "speaks another version: bring both to the same release",
    "unreachable": "is not reachable: is it running, and does a firewall let the port through?",
    "timeout": "does not finish a handshake in time: a firewall that drops packets, or a host that is overloaded",
    "bad-preamble": "is no irisd: something else listens at that port",
    "overloaded": "takes no more handshakes at the moment: it is tried again",
    "misrouted": "is another node than was announced: its address is in use elsewhere, set `advertise` there",
    "self": "is this daemon itself: leave it out of its own seeds",
}


@click.command(
    short_help="How the daemon looks for peers, and what came of it.",
    epilog=examples(
        "iris doctor",
        "iris doctor --json | jq '.services[].candidates[] | select(.linked | not)'",
    ),
)
@with_settings
async def doctor(settings: Settings) -> None:
    """Show how the daemon looks for peers: what it heard and dialled, how that ended, and what to do."""
    found, nodes = await ask_once(settings, _ask)
    if settings.json:
        print_json(discovery_json(found, nodes))
    else:
        print(show_discovery(found, nodes), flush=True)


async def _ask(control: Control) -> tuple[pb.Discovery, list[pb.Node]]:
    return await control.discovery(), await control.nodes()


# ------------------------------------------------------------------- for people


def show_discovery(found: pb.Discovery, nodes: Sequence[pb.Node] = ()) -> str:
    """Everything, and advice at the end."""
    parts = [_multicast(found.multicast)]
    if found.heard:
        parts.append(_heard(found.heard))
    for service in found.services:
        parts += _service(service)
    others = [node for node in nodes if node.state != "self"]
    if others:
        parts.append(_nodes(others, found))
    if found.state_file:
        state = found.state_problem or "in order"
        parts.append(f"addresses that worked are kept in {printable(found.state_file)}: {printable(state)}")
    else:
        parts.append("addresses that worked are not kept over a restart")
    if found.conditions:
        rows = [(Cell(row.name, "yellow"), row.detail) for row in found.conditions]
        parts.append(table(("CONDITION", "WHAT IT MEANS"), rows))
    told = advice(found, nodes)
    lines = [f"  - {printable(line)}" for line in told] or ["  nothing: all is as it should be"]
    parts.append("\n".join([style("What to do", "bold"), *lines]))
    return "\n\n".join(parts)


def _multicast(multicast: pb.Multicast) -> str:
    line = f"multicast: {style(printable(multicast.state), _MULTICAST_COLOURS.get(multicast.state, 'bold'))}"
    if multicast.detail:
        line += f", {printable(multicast.detail)}"
    if multicast.groups:
        line += f", joined {printable(', '.join(multicast.groups))}"
    if multicast.interfaces:
        names = (f"{row.name} ({', '.join(row.addresses)})" for row in multicast.interfaces)
        line += f" on {printable(', '.join(names))}"
    if multicast.state == "off":
        return line
    counts = ", ".join(f"{name} {count}" for name, count in sorted(multicast.counters.items()))
    return f"{line}\nrecords heard: {printable(counts) or 'none, not even our own'}"


def _heard(heard: Iterable[pb.Heard]) -> str:
    rows = [
        (
            row.node[:ID_SHOWN],
            row.service or "-",
            _VERDICTS.get(row.verdict, row.verdict),
            _few(row.addresses),
            row.count,
            show_time(row.ago),
        )
        for row in heard
    ]
    return _cut(("HEARD", "SERVICE", "WHICH IS", "SAYS IT IS AT", "TIMES", "AGO"), rows)


def _service(service: pb.ServiceDiscovery) -> list[str]:
    name = style(printable(service.service), "bold")
    line = f"{name}: node {printable(service.node[:ID_SHOWN])}, "
    if service.advertised:
        line += f"others are told {printable(', '.join(service.advertised))}: {printable(service.advertised_because)}"
    else:
        line += "others are told no address"
    parts = [line]
    if service.seeds:
        seeds = [(row.seed, _few(row.addresses), row.problem or "-") for row in service.seeds]
        parts.append(table(("SEED", "STANDS FOR", "PROBLEM"), seeds))
    if service.candidates:
        rows = [
            (
                row.node[:ID_SHOWN] or "?",
                row.source,
                _few(row.addresses),
                _outcome(row),
                row.attempts,
                "-" if row.linked else show_time(row.next_dial) if row.next_dial else "now",
            )
            for row in service.candidates
        ]
        parts.append(_cut(("CANDIDATE", "FROM", "AT", "OUTCOME", "DIALS", "NEXT IN"), rows))
    else:
        parts.append("no candidates: nobody was heard of")
    return parts


def _nodes(nodes: Iterable[pb.Node], found: pb.Discovery) -> str:
    """Who is known, and by which ways."""
    ago = {row.node: row.ago for row in found.heard}
    multicast = found.multicast.state == "on"
    rows = [
        (
            row.name,
            Cell(row.state, STATE_COLOURS.get(row.state, "")),
            Cell("linked", "green") if row.linked else Cell("no link", "" if row.state in _GONE else "yellow"),
            f"heard {show_time(ago[row.node])} ago" if row.node in ago else "not heard" if multicast else "-",
            heard(row),
            Cell(slow(row), "yellow") if row.health else "-" if row.state in _GONE else "well",
            row.version or "-",
        )
        for row in nodes
    ]
    return _cut(("NODE", "STATE", "TCP", "MULTICAST", "LAST HEARD", "SAYS IT IS", "VERSION"), rows)


def _outcome(row: pb.Candidate) -> Cell:
    if row.linked:
        return Cell("linked", "green")
    return Cell(_ended(row), "" if row.outcome == NOT_WANTED else "yellow")


def _ended(row: pb.Candidate) -> str:
    if row.outcome == NOT_WANTED:
        return "no link needed now"
    if not row.outcome:
        return "not dialled yet" if not row.attempts else "under way"
    outcome = "link ended" if row.outcome == "linked" else row.outcome
    return f"{outcome} {show_time(row.ago)} ago" + (f": {row.detail}" if row.detail else "")


def _few(addresses: Iterable[str], most: int = 3) -> str:
    there = list(addresses)
    more = f" and {len(there) - most} more" if len(there) > most else ""
    return ", ".join(there[:most]) + more or "-"


def _cut(titles: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    more = f"\n... and {len(rows) - ROWS_SHOWN} more (--json)" if len(rows) > ROWS_SHOWN else ""
    return table(titles, rows[:ROWS_SHOWN]) + more


def advice(found: pb.Discovery, nodes: Sequence[pb.Node] = ()) -> list[str]:
    """What an operator should do or know, in sentences; empty when all is well."""
    told = []
    multicast = found.multicast
    if multicast.state == "unavailable":
        told.append(f"multicast does not work ({multicast.detail}): name a seed or two, or pin `interfaces`")
    elif multicast.state == "off" and not any(service.seeds for service in found.services):
        told.append("multicast is off and there are no seeds: nobody is found, one can only be found")
    elif multicast.state == "on":
        told += _about_unheard(found, nodes)
    told += _about_heard(found.heard)
    for service in found.services:
        told += [f"{service.service}: seed {row.seed}: {row.problem}" for row in service.seeds if row.problem]
        told += _about_dials(service)
    told += _about_nodes(nodes)
    told += [f"this daemon: {row.detail}" for row in found.conditions if row.name == "slow-loop"]
    if found.state_problem:
        told.append(f"the state file cannot be used: {found.state_problem}")
    return told


def _about_unheard(found: pb.Discovery, nodes: Iterable[pb.Node]) -> list[str]:
    linked = {row.node: "" for service in found.services for row in service.candidates if row.linked}
    linked |= {row.node: row.name for row in nodes if row.linked}
    for row in found.heard:
        linked.pop(row.node, None)
    if not linked or len(found.heard) >= HEARD_AT_MOST:
        return []
    names = ", ".join(linked[node] or node[:ID_SHOWN] for node in sorted(linked)[:NAMED])
    verb = "answers" if len(linked) == 1 else "answer"
    return [
        f"{count_of(len(linked), 'linked node')} ({names}) {verb} over TCP but not heard by multicast: "
        "on another network, or with multicast off, or a switch or firewall holds multicast back"
    ]


def _about_nodes(nodes: Iterable[pb.Node]) -> list[str]:
    """Who is slow, doubted, out of our reach, or of another release."""
    told = []
    releases = {row.service: row.version for row in nodes if row.state == "self"}
    for row in nodes:
        who = f"{row.service}: {row.name or row.node[:ID_SHOWN]}"
        if row.state == "self":
            if row.health:
                told.append(f"{who}, which is this daemon, is {slow(row)}: its host has too much to do")
            continue
        if row.health and row.state not in _GONE:
            told.append(f"{who} says that it is {slow(row)}: its host has too much to do, or it stood still")
        if row.state == "suspect":
            told.append(f"{who} is doubted, it was last heard {heard(row)}: chosen only when nobody else remains")
        ours = releases.get(row.service)
        if row.version and ours and row.version != ours and row.state not in _GONE:
            told.append(f"{who} runs {row.version}, this daemon {ours}: bring both to the same release")
    return told[:MOST_ABOUT_NODES]


def _about_heard(heard: Iterable[pb.Heard]) -> list[str]:
    there: dict[str, list[str]] = {}
    for row in heard:
        where = f" at {_few(row.addresses, 1)}" if row.addresses else ""
        there.setdefault(row.verdict, []).append(f"{row.node[:ID_SHOWN]}{where}")
    told = []
    if who := there.get("other-service"):
        told.append(
            f"{_listed('node', who)} with another key heard on this network: "
            "right if that is another service, else compare `irisd keys show`"
        )
    if who := there.get("other-version"):
        told.append(f"{_listed('node', who)} of ours in another version: bring all to the same release")
    if who := there.get("out-of-reach"):
        told.append(f"{_listed('node', who)} of ours at addresses we cannot reach: set `listen` or `advertise` there")
    if who := there.get("malformed"):
        told.append(f"{_listed('announcer', who)} with our tag makes no sense: forged, or broken on the way")
    return told


def _listed(noun: str, who: Sequence[str], most: int = 3) -> str:
    more = f" and {len(who) - most} more" if len(who) > most else ""
    return f"{count_of(len(who), noun)} ({', '.join(who[:most])}{more})"


def _about_dials(service: pb.ServiceDiscovery) -> list[str]:
    told = []
    for row in service.candidates:
        if row.linked or row.outcome not in _ADVICE:
            continue
        told.append(f"{service.service}: {_few(row.addresses, 2)} {_ADVICE[row.outcome]}")
        if len(told) == 8:
            break
    return told


# ----------------------------------------------------------------- for programs


def discovery_json(found: pb.Discovery, nodes: Sequence[pb.Node] = ()) -> dict[str, Any]:
    """All of it, as plain values."""
    return {
        "multicast": {
            "state": found.multicast.state,
            "detail": found.multicast.detail,
            "service_type": found.multicast.service_type,
            "groups": list(found.multicast.groups),
            "interfaces": [{"name": row.name, "addresses": list(row.addresses)} for row in found.multicast.interfaces],
            "counters": dict(sorted(found.multicast.counters.items())),
        },
        "state_file": found.state_file,
        "state_problem": found.state_problem,
        "heard": [
            {
                "node": row.node,
                "service": row.service,
                "verdict": row.verdict,
                "addresses": list(row.addresses),
                "count": row.count,
                "ago": row.ago,
            }
            for row in found.heard
        ],
        "services": [_service_json(row) for row in found.services],
        **nodes_json(nodes),
        "conditions": [{"name": row.name, "detail": row.detail} for row in found.conditions],
        "advice": advice(found, nodes),
    }


def _service_json(service: pb.ServiceDiscovery) -> dict[str, Any]:
    return {
        "service": service.service,
        "node": service.node,
        "advertised": list(service.advertised),
        "advertised_because": service.advertised_because,
        "seeds": [
            {"seed": row.seed, "addresses": list(row.addresses), "problem": row.problem} for row in service.seeds
        ],
        "candidates": [
            {
                "node": row.node,
                "source": row.source,
                "addresses": list(row.addresses),
                "linked": row.linked,
                "attempts": row.attempts,
                "outcome": row.outcome,
                "detail": row.detail,
                "ago": row.ago,
                "heard": row.heard,
                "next_dial": row.next_dial,
            }
            for row in service.candidates
        ],
        "known": service.known,
        "remembered": list(service.remembered),
        "counters": dict(sorted(service.counters.items())),
    }
