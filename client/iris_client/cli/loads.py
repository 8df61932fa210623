"""A daemon's load for people: tables that fit a screen (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from iris_client.cli.output import Cell, style, table
from iris_client.cli.rates import Rates, Span
from iris_client.cli.values import count_of, printable, show_size, show_time
from iris_proto.v1 import control_pb2 as pb


@dataclass(slots=True)
class Section:
    """A table of which the less important rows may be left out.

    Attributes:
        titles: Of its columns.
        rows: Each with how much it matters.
        total: Rows there are, those the daemon left out included.
    """

    titles: Sequence[str]
    rows: Sequence[tuple[float, Sequence[object]]]
    total: int = 0
    shown: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = max(self.total, len(self.rows))
        self.shown = len(self.rows)

    @property
    def height(self) -> int:
        """Lines it takes, the empty one above it included."""
        return 2 + self.shown + (self.shown < self.total)

    def text(self) -> str:
        """The rows that matter most, in their order."""
        most = sorted(range(len(self.rows)), key=lambda at: -self.rows[at][0])[: self.shown]
        lines = table(self.titles, [self.rows[at][1] for at in sorted(most)])
        left = self.total - self.shown
        return f"{lines}\n{style(f'... and {left:,} more', 'dim')}" if left else lines


def show_load(span: Span, height: int | None = None) -> str:
    """Everything there is to see, in at most ``height`` lines if that can be."""
    now = span.now
    facts = [f"irisd {now.version}", f"up {show_time(now.uptime)}", show_size(now.memory)]
    if now.draining:
        facts.append("draining")
    parts: list[str | Section] = [f"{style(printable(now.host), 'bold')}: {printable(', '.join(facts))}"]
    for service in now.services:
        parts += [_service(service), *_sections(span, service)]
        if not service.cluster_count:
            parts.append("\nno clusters: nobody serves a name (iris serve NAME -- COMMAND does)")
    _fit([part for part in parts if isinstance(part, Section)], parts, height)
    shown = [part if isinstance(part, str) else "\n" + part.text() for part in parts]
    return "\n".join(shown)


def _fit(sections: list[Section], parts: list[str | Section], height: int | None) -> None:
    """Let the longest tables give way until all fit."""
    if height is None:
        return
    lines = sum(part.height if isinstance(part, Section) else 1 + part.count("\n") for part in parts)
    while lines > height:
        longest = max(sections, key=lambda section: section.shown, default=None)
        if longest is None or longest.shown <= 1:
            return
        before = longest.height
        longest.shown -= 1
        lines -= before - longest.height


def _service(row: pb.ServiceLoad) -> str:
    facts = [
        count_of(row.nodes, "node"),
        count_of(row.links, "link"),
        count_of(row.attachments, "app"),
        f"{row.pending:,} under way",
        f"{show_size(row.queued)} queued",
    ]
    return f"{style(printable(row.service), 'bold')}: {', '.join(facts)}"


def _sections(span: Span, service: pb.ServiceLoad) -> list[Section]:
    found = [
        _called(span, service),
        _served(span, service),
        Section(
            ("MEMBER OF THIS NODE", "CLUSTER", "AT WORK", "LEVEL", "PACE", "FAILING", "STATE"),
            [(_weight(row), _member(row)) for row in service.members],
            service.member_count,
        ),
        Section(
            ("QUEUE TOWARDS", "", "HOLDS", "FRAMES"),
            [(row.bytes, (row.to, row.name, right(show_size(row.bytes)), row.frames)) for row in service.queues],
            service.queue_count,
        ),
        Section(
            ("DROPPED BECAUSE", "A SECOND", "IN ALL"),
            [
                (rate or 0.0, (Cell(reason, "yellow" if rate else ""), per_second(rate), count))
                for reason, count, rate in span.drops(service)
            ],
        ),
    ]
    return [section for section in found if section.rows]


def _called(span: Span, service: pb.ServiceLoad) -> Section:
    rows = []
    for row in service.clusters:
        found = span.called(service, row)
        if not row.members and not row.in_flight and not found.calls:
            continue  # a name that nobody serves, and that nobody asks for any more
        cells = (
            Cell(row.name, "" if row.members else "red"),
            Cell(row.members, "" if row.members else "red"),
            row.nodes,
            Cell(row.ejected, "yellow" if row.ejected else ""),
            row.in_flight,
            *_rates(found),
        )
        rows.append(((found.calls or 0.0) + row.in_flight, cells))
    left_out = service.cluster_count - len(service.clusters)
    titles = ("CLUSTER", "MEMBERS", "NODES", "EJECTED", "IN FLIGHT", "CALLS/S", "FAILED/S", "P50", "P99")
    return Section(titles, rows, len(rows) + left_out)


def _served(span: Span, service: pb.ServiceLoad) -> Section:
    rows = []
    for row in service.clusters:
        if row.here or row.at_work or row.waiting:
            found = span.served(service, row)
            waiting = Cell(row.waiting, "yellow" if row.waiting else "")
            cells = (row.name, row.here, row.at_work, waiting, *_rates(found))
            rows.append(((found.calls or 0.0) + row.at_work + row.waiting, cells))
    return Section(("SERVED HERE", "MEMBERS", "AT WORK", "WAITING", "CALLS/S", "FAILED/S", "P50", "P99"), rows)


def _rates(found: Rates) -> tuple[Cell, ...]:
    failed = per_second(found.failed, "red" if found.failed else "")
    return per_second(found.calls), failed, seconds(found.p50), seconds(found.p99)


def _member(row: pb.MemberLoad) -> Sequence[object]:
    state = Cell("-")
    if row.ejected:
        state = Cell("ejected", "red")
    elif row.on_trial:
        state = Cell("on trial", "yellow")
    full = row.at_work >= row.concurrency
    work = right(f"{row.at_work:,}/{row.concurrency:,}", "yellow" if full else "")
    return (row.name, row.cluster, work, row.level, seconds(row.pace or None), percent(row.failing), state)


def _weight(row: pb.MemberLoad) -> float:
    return 1e9 * (row.ejected or row.on_trial) + row.at_work + row.failing


def right(text: str, colour: str = "") -> Cell:
    """A cell that stands at the right, as numbers do."""
    cell = Cell(text, colour)
    cell.right = True
    return cell


def per_second(rate: float | None, colour: str = "") -> Cell:
    """A rate: whole numbers where they say enough."""
    if rate is None:
        return right("-")
    return right(f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.1f}", colour)


def seconds(span: float | None) -> Cell:
    """A time; a dash where nothing is known."""
    return right("-" if span is None else show_time(span))


def percent(share: float) -> Cell:
    """A share that is bad when it is large."""
    colour = "red" if share >= 0.3 else "yellow" if share >= 0.05 else ""
    return right("-" if share < 0.0005 else f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.1f}%", colour)
