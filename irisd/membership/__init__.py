"""Who is here, and how sure are we (pure): beliefs about nodes, and the heartbeats they rest on."""

from irisd.membership.beliefs import Port
from irisd.membership.membership import Membership, MembershipSettings
from irisd.membership.view import MAX_JUMP, Known, Verdict, View

__all__ = ["MAX_JUMP", "Known", "Membership", "MembershipSettings", "Port", "Verdict", "View"]
