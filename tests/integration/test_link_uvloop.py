"""The life of links once more, on the event loop the daemon runs on."""

from __future__ import annotations

import inspect

import pytest

from tests.integration import test_link_hostile, test_link_life, test_link_settling

uvloop = pytest.importorskip("uvloop")

STORIES = [
    story
    for module in (test_link_life, test_link_hostile, test_link_settling)
    for name, story in sorted(vars(module).items())
    if name.startswith("test_") and inspect.iscoroutinefunction(story) and not inspect.signature(story).parameters
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: str(story.__name__))
def test_on_uvloop(story: object) -> None:
    uvloop.run(story())  # type: ignore[operator]
