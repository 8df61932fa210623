"""What must hold for one node: at every step, and when everything is quiet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irisd.flow.ledger import ACK_EVERY
from irisd.flow.outbox import FRAME_COST, REPLIES, REQUESTS, Outbox
from irisd.model import State, WhenFull
from irisd.node import Node
from irisd.node.endpoints import App, Endpoint, Head
from irisd.node.pacing import MARK_BYTES
from irisd.node.tunnels import DATA_COST, MAX_WINDOW
from irisd.router import Tunnel

if TYPE_CHECKING:
    from tests.sim.world import World

DEEP_EVERY = 25
"""The checks that walk over everything run this often; the cheap ones at every step."""


def check_bounds(world: World, node: Node) -> None:
    """No queue is above its bound and the counts are true."""
    core = node.core
    settings = core.settings
    endpoints: list[Endpoint] = [*core.apps.values(), *core.peers.values()]
    deep = world.steps % DEEP_EVERY == 0
    for endpoint in endpoints:
        outbox = endpoint.outbox
        slack = settings.max_body + 64 * FRAME_COST  # one message always fits
        limit = settings.app_outbox if isinstance(endpoint, App) else settings.peer_outbox
        topics = 0
        for flow in outbox.flows():
            if flow.key == REQUESTS:
                world.require(flow.bytes <= limit + slack, f"calls towards {endpoint.id!r} hold {flow.bytes} bytes")
            elif flow.key == REPLIES:
                held = flow.bytes + outbox.urgent_bytes
                calls = (len(endpoint.opened) + len(endpoint.given) + 200) * 2 * FRAME_COST
                world.require(held <= limit + slack + calls, f"answers towards {endpoint.id!r} hold {held} bytes")
            elif flow.topic is not None:
                topics += flow.bytes
                alone = len(flow.frames) <= 1 or flow.offset
                paid = sum(frame.cost > 0 for frame in flow.frames) and world.largest  # credit may be for one large one
                world.require(alone or flow.bytes <= flow.limit + paid, f"topic {flow.key} holds {flow.bytes} bytes")
            elif isinstance(flow.key, int) and flow.when_full == WhenFull.BLOCK:
                held = flow.bytes
                assert isinstance(endpoint, App)
                subscription = endpoint.subscriptions[flow.key]
                assert subscription.queue is not None
                used, bound = subscription.queue.used, max(subscription.queue.limit, world.largest)
                world.require(held <= used + FRAME_COST <= bound + FRAME_COST, f"{flow.key} holds {used} bytes")
            elif isinstance(flow.key, int):
                alone = len(flow.frames) <= 1 or flow.offset
                world.require(alone or flow.bytes <= flow.limit, f"subscription {flow.key} holds {flow.bytes} bytes")
        world.require(topics <= limit + slack, f"topics towards {endpoint.id!r} hold {topics} bytes")
        if deep:
            check_counts(world, outbox)
            check_tunnels(world, node, endpoint)
        if isinstance(endpoint, App):
            check_holds(world, node, endpoint)
    if deep:
        check_credit(world, node)


def check_holds(world: World, node: Node, app: App) -> None:
    """What is held is counted, waits for something, and is little."""
    held = sum(
        item.bytes if isinstance(item, Head) else MARK_BYTES for hold in app.held.values() for item in hold.items
    )
    world.require(app.held_bytes == held, f"{app.name} counts {app.held_bytes} bytes held, there are {held}")
    world.require(held <= node.core.settings.most_held, f"{held} bytes of {app.name} are held")
    for hold in app.held.values():
        world.require(hold.lacking and hold.items, f"{hold.topic} of {app.name} waits for nobody")
        for purse in hold.lacking:
            world.require(hold in purse.waiting, f"{hold.topic} of {app.name} does not wait for what it lacks")


def check_credit(world: World, node: Node) -> None:
    """No more is lent than there is room for; books add up."""
    for book in node._events.lending.books:
        world.require(book.lent == sum(book.loans.values()), f"a book lent {book.lent}: {book.loans}")
        if book.queues and book.loans:
            rooms = [queue.limit - queue.used for queue in book.queues]
            room = max(rooms) if book.group else min(rooms)
            alone = len(book.loans) == 1 and book.lent <= world.largest
            world.require(book.lent <= room or alone, f"{book.lent} bytes are lent of {book.filter}, {room} are free")


def check_counts(world: World, outbox: Outbox) -> None:
    total = 0
    for flow in outbox.flows():
        counted = sum(
            len(frame.body) + frame.header_bytes + FRAME_COST
            for frame in flow.frames
            if frame.deadline != -float("inf")
        )
        world.require(flow.bytes == counted, f"flow {flow.key!r} counts {flow.bytes} bytes and holds {counted}")
        total += flow.bytes
    world.require(outbox.bytes == total, f"an outbox counts {outbox.bytes} bytes and holds {total}")


def check_tunnels(world: World, node: Node, endpoint: Endpoint) -> None:
    """What an end may send, and what of it waits here, never exceed the window."""
    for id, tunnel in [*endpoint.opened.items(), *endpoint.given.items()]:
        if isinstance(tunnel, Tunnel):
            end = tunnel.end_of(endpoint.id, id)
            waiting, held = endpoint.outbox.queued(("tunnel", id))
            held -= waiting * (FRAME_COST - DATA_COST) + tunnel.finished[1 - end] * DATA_COST
            world.require(
                tunnel.credit[1 - end] >= 0 and tunnel.credit[1 - end] + held <= MAX_WINDOW,
                f"a tunnel holds {held} bytes and {tunnel.credit[1 - end]} of credit",
            )


def check_quiet(world: World, node: Node) -> None:
    """Nothing lingers: whatever was under way has ended everywhere."""
    core = node.core
    name = core.identity.name
    left: dict[str, Any] = {}
    endpoints: list[Endpoint] = [*core.apps.values(), *core.peers.values()]
    for endpoint in endpoints:
        who = f"{name} towards {endpoint.id!r}"
        left[f"{who}: opened"] = endpoint.opened
        left[f"{who}: given"] = endpoint.given
        left[f"{who}: outbox"] = bool(endpoint.outbox)
        left[f"{who}: bytes"] = endpoint.outbox.bytes
        left[f"{who}: urgent bytes"] = endpoint.outbox.urgent_bytes
        left[f"{who}: flows"] = [flow.key for flow in endpoint.outbox.flows() if not flow.kept]
        left[f"{who}: parts"] = endpoint.assembler._open
        left[f"{who}: bytes of parts"] = endpoint.assembler._held
        if isinstance(endpoint, App):
            left[f"{who}: held"] = endpoint.held
            left[f"{who}: held bytes"] = endpoint.held_bytes
            for member in endpoint.members.values():
                left[f"{who}: slots of {member.cluster}"] = member.outstanding
    for peer in core.peers.values():
        left[f"{name} towards {peer.info.name}: pieces"] = peer.incoming
        unacknowledged = core.ledgers[peer.node].unacknowledged
        left[f"{name} towards {peer.info.name}: unacknowledged"] = unacknowledged >= ACK_EVERY
        left[f"{name} towards {peer.info.name}: losses"] = core.ledgers[peer.node]._lost
        left[f"{name} towards {peer.info.name}: not synced"] = not peer.synced
    left[f"{name}: under way"] = node.under_way
    members = node._calls.members
    left[f"{name}: waiting"] = members.waiting
    left[f"{name}: waiting bytes"] = sum(group.waiting.bytes for group in members._groups.values())
    left[f"{name}: under way here"] = sum(group.under_way for group in members._groups.values())
    left[f"{name}: holders"] = members._holders
    left[f"{name}: given to nodes"] = node.calls.places.under_way
    left[f"{name}: tunnels"] = node._tunnels.open
    left[f"{name}: syncing"] = node._records._syncing
    left[f"{name}: timers"] = len(core.timers)
    left[f"{name}: ledgers of strangers"] = core.ledgers.keys() - core.peers.keys()
    left[f"{name}: counted as held"] = core.counters["held.bytes"] or core.counters["held.topics"]
    for key, purse in node._events.pacing.purses.items():
        left[f"{name}: waits for {key}"] = purse.waiting
    left = {what: value for what, value in left.items() if value}
    world.require(not left, f"all is quiet, and yet there are left: {left}")


def check_agreement(world: World) -> None:
    """Every node holds of every other what that one says of itself, and believes the same of everybody."""
    alive = world.alive()
    there = {daemon.id for daemon in alive}
    for daemon in alive:
        core, membership = daemon.node.core, daemon.node.membership
        for other in alive:
            believed = {claim.key: claim for claim in core.registry.claims(other.id)}
            said = {claim.key: claim for claim in other.node.core.record.claims()}
            world.require(believed == said, f"{daemon} believes {believed} of {other}, which says {said}")
            world.require(core.registry.is_routable(other.id), f"{daemon} cannot reach {other}")
            world.require(membership.state(other.id) is State.ALIVE, f"{daemon} does not believe that {other} lives")
        present = membership.view.present.keys()
        world.require(present == there, f"{daemon} knows of {len(present)} nodes, there are {len(there)}")
        same = membership.view.digest == alive[0].node.membership.view.digest
        world.require(same, f"{daemon} and {alive[0]} have different digests")
        world.require(not membership.beliefs.suspicions, f"{daemon} suspects somebody")
