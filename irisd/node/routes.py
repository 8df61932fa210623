"""What the pacing of publishers needs of the room that sends: where a message goes once it may leave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from irisd.model import Frame, NodeId
from irisd.node.endpoints import App, Head
from irisd.registry import Match


class Router(Protocol):
    """Where messages go that may leave."""

    def to_everyone(self, app: App, frame: Frame, topic: str, match: Match, cost: int) -> None: ...
    def to_group(self, app: App, frame: Frame, topic: str, group: str, node: NodeId, cost: int) -> None: ...
    def to_nobody(self, topic: str, group: str, messages: int, match: Match) -> None: ...
    def split(self, frame: Frame, match: Match, group: str) -> Iterator[Frame]: ...
    def choose(self, topic: str, group: str, nodes: dict[NodeId, int]) -> NodeId: ...
    def unsent(self, app: App, topic: str, head: Head) -> None: ...
