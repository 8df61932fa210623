"""How calls end: what that says of whoever had them, and whether another may be asked."""

from __future__ import annotations

from irisd.model import Code, Frame, Kind
from irisd.router import Ended

LATE = 0.05
"""Seconds before its deadline from which on a call that is taken back counts as one that was not answered in time."""

FAILURES = frozenset({Code.HANDLER_FAILED, Code.DEADLINE_EXCEEDED})
"""What counts against a member."""

MOST_HERE = 3
"""Members of one node that may refuse a call before its caller is told; those that are leaving do not count."""

ELSEWHERE = frozenset({Code.OVERLOADED, Code.MEMBER_LOST, Code.NO_MEMBER, Code.NOT_SUPPORTED})
"""Failures another node may not share."""


def ended_by(frame: Frame) -> Ended:
    """What an answer says of whoever gave it."""
    if frame.kind != Kind.ERROR or frame.code == Code.REJECTED:
        return Ended.WELL
    return Ended.BADLY if frame.code in FAILURES else Ended.OTHERWISE
