"""``iris trace``: what would happen to a call now, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

from iris_client._balance import BALANCES
from iris_client._model import Pattern
from iris_client.cli.completion import cluster_names
from iris_client.cli.control import Control, ask_once
from iris_client.cli.loads import percent, right, seconds
from iris_client.cli.options import Settings, examples, with_settings
from iris_client.cli.output import FAILED, NO_MEMBER, USAGE, Cell, print_json, style, table
from iris_client.cli.values import count_of, printable, show_size, show_time
from iris_proto.v1 import control_pb2 as pb

PATTERNS: Final = {"request": Pattern.REQUEST, "push": Pattern.PUSH, "tunnel": Pattern.TUNNEL}
EXITS: Final = {"no-member": NO_MEMBER, "not-supported": NO_MEMBER, "overloaded": FAILED, "invalid": USAGE}
COLOURS: Final = {"handed": "green", "waits": "yellow", "unknown": "yellow"}


@click.command(
    short_help="What would happen to a call, and why.",
    epilog=examples(
        "iris trace databases",
        "iris trace databases --key customer-7",
        "iris trace storage --pattern tunnel --json | jq -r .member",
    ),
)
@click.argument("name", shell_complete=cluster_names)
@click.option(
    "--pattern",
    type=click.Choice(list(PATTERNS)),
    default="request",
    show_default=True,
    help="What kind of call.",
)
@click.option("--method", metavar="NAME", default="", help="Which of the member's handlers; it is not routed by.")
@click.option("--key", metavar="KEY", default="", help="The call's key.")
@click.option(
    "--balance",
    type=click.Choice([name for name in BALANCES if name != "hash"]),
    help="How a member is chosen.  [default: as the cluster's members say]",
)
@with_settings
async def trace(settings: Settings, name: str, pattern: str, method: str, key: str, balance: str | None) -> int | None:
    """Show how a call to cluster NAME would be routed now: every candidate, the choice, and why.

    Nothing is delivered. This host's daemon says which node it would choose, that node is asked which member. Where
    chance decides, the next call may go another way. The exit code is 3 when nobody could take the call, 1 when all
    are full.
    """
    request = pb.TraceRequest(
        cluster=name, pattern=PATTERNS[pattern], key=key, balance=BALANCES[balance] if balance else 0
    )

    async def ask(control: Control) -> pb.Trace:
        return await control.trace(request)

    answer = await ask_once(settings, ask)
    if settings.json:
        print_json(trace_json(answer, pattern, method))
    else:
        print(show_trace(answer, pattern, method))
    return EXITS.get(_last(answer).outcome)


def show_trace(answer: pb.Trace, pattern: str, method: str = "") -> str:
    """For people: every hop, and what comes of it."""
    what = f"{pattern} to {style(printable(answer.cluster), 'bold')}"
    start = f"{what}, now, from {printable(answer.hops[0].name)}" if answer.hops else what
    parts = [f"a {start}; nothing is delivered"]
    if method:
        parts.append(f"method {printable(method)}: the member finds the handler, its daemon does not know which it has")
    for number, hop in enumerate(answer.hops, 1):
        shown = _hop(number, hop)
        if shown:
            parts.append(shown)
    last = _last(answer)
    word = style(last.outcome or "unknown", COLOURS.get(last.outcome, "red"))
    parts.append(f"{word}: {printable(last.detail)}")
    return "\n\n".join(parts)


def _hop(number: int, hop: pb.TraceHop) -> str:
    """One choice; empty if there was none to make."""
    name = printable(hop.name)
    among = "node" if hop.among == "nodes" else "member"
    lines = []
    if hop.policy:
        line = f"{number}. {style(name, 'bold')} chooses a {among}: {hop.policy}, {printable(hop.because)}"
        if hop.took:
            line += f"; asked and answered in {show_time(hop.took)}"
        lines.append(line)
    elif hop.candidates:
        lines.append(f"{number}. {style(name, 'bold')} has no {among} to choose")
    if hop.candidates:
        lines.append(_nodes(hop) if hop.among == "nodes" else _members(hop))
        left = hop.count - len(hop.candidates)
        if left > 0:
            lines.append(style(f"... and {left:,} more", "dim"))
    if hop.why:
        lines.append(f"-> {style(printable(hop.chosen), 'bold')}: {printable(hop.why)}")
    if hop.waiting:
        lines.append(f"   waiting there for a slot: {count_of(hop.waiting, 'call')}")
    return "\n".join(lines)


def _nodes(hop: pb.TraceHop) -> str:
    rows = [
        (
            *_mark(row),
            row.members,
            Cell(row.out, "yellow" if row.out else ""),
            *_numbers(row),
            seconds(row.round_trip or None),
            right(show_size(row.queued) if row.queued else "-"),
            _cost(row),
            _remarks(row),
        )
        for row in hop.candidates
    ]
    titles = ("", "NODE", "MEMBERS", "EJECTED", *_NUMBERS, "ROUND TRIP", "QUEUED", "COST", "REMARKS")
    return table(titles, rows)


def _members(hop: pb.TraceHop) -> str:
    rows = [
        (
            *_mark(row),
            *_numbers(row),
            right(show_size(row.queued) if row.queued else "-"),
            _cost(row),
            _remarks(row),
        )
        for row in hop.candidates
    ]
    return table(("", "MEMBER", *_NUMBERS, "QUEUED", "COST", "REMARKS"), rows)


_NUMBERS = ("LEVEL", "BUSY/SLOTS", "PACE", "FAILING")


def _mark(row: pb.TraceCandidate) -> tuple[str, Cell]:
    return "->" if row.chosen else "", Cell(row.name, "bold" if row.chosen else "")


def _numbers(row: pb.TraceCandidate) -> Sequence[object]:
    busy = f"{row.busy:,.1f}".removesuffix(".0")
    full = right(f"{busy}/{row.slots:,}", "yellow" if row.busy >= row.slots else "")
    return row.level, full, seconds(row.pace or None), percent(row.failing)


def _cost(row: pb.TraceCandidate) -> Cell:
    return right(f"{row.cost:,.2f}" if row.cost else "-")


def _remarks(row: pb.TraceCandidate) -> str:
    remarks = []
    if not row.handles:
        remarks.append("does not handle it")
    if row.suspect:
        remarks.append("suspect")
    if row.ejected:
        remarks.append("ejected")
    if row.on_trial:
        remarks.append("on trial")
    if row.drawn:
        remarks.append("compared")
    if not remarks and not row.first:
        remarks.append("only after those of a better level")
    if row.slots and row.busy >= row.slots:
        remarks.append("full")
    return ", ".join(remarks) or "-"


def _last(answer: pb.Trace) -> pb.TraceHop:
    return answer.hops[-1] if answer.hops else pb.TraceHop(outcome="unknown", detail="the daemon says nothing")


def trace_json(answer: pb.Trace, pattern: str, method: str = "") -> dict[str, Any]:
    """For programs; ``member`` is who would have the call, if that is known."""
    last = _last(answer)
    return {
        "service": answer.service,
        "cluster": answer.cluster,
        "pattern": pattern,
        "method": method,
        "outcome": last.outcome,
        "detail": last.detail,
        "member": last.chosen if last.among == "members" and last.chosen else None,
        "hops": [
            {
                "name": hop.name,
                "node": hop.node,
                "among": hop.among,
                "policy": hop.policy,
                "because": hop.because,
                "chosen": hop.chosen or None,
                "why": hop.why,
                "waiting": hop.waiting,
                "took": hop.took or None,
                "outcome": hop.outcome,
                "detail": hop.detail,
                "count": hop.count,
                "candidates": [_candidate_json(row, hop.among) for row in hop.candidates],
            }
            for hop in answer.hops
        ],
    }


def _candidate_json(row: pb.TraceCandidate, among: str) -> dict[str, Any]:
    told: dict[str, Any] = {"name": row.name}
    if among == "nodes":
        told |= {"node": row.id, "members": row.members, "out": row.out, "suspect": row.suspect}
        told["round_trip"] = row.round_trip or None
    else:
        told["on_trial"] = row.on_trial
    return told | {
        "level": row.level,
        "slots": row.slots,
        "busy": row.busy,
        "pace": row.pace or None,
        "failing": row.failing,
        "handles": row.handles,
        "first": row.first,
        "ejected": row.ejected,
        "drawn": row.drawn,
        "chosen": row.chosen,
        "cost": row.cost or None,
        "queued": row.queued,
    }
