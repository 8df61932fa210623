"""The brain (pure): one service's presence in this daemon.

Facts and ``now`` go in, small effects come out; data waits in outboxes until an
edge takes it. No clock, no socket, no logger: a thousand of these run in one
thread on a virtual clock.
"""

from irisd.node.core import NodeIdentity, NodeSettings
from irisd.node.node import Node

__all__ = ["Node", "NodeIdentity", "NodeSettings"]
