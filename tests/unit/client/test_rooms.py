"""The SDK's own import law: what is pure stays pure, and nothing needs the daemon but the testing module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import iris_client

ROOT = Path(iris_client.__file__).parent
PURE = [
    "_assembly", "_calls", "_changes", "_codecs", "_deadlines", "_deliveries", "_errors", "_eventqueue", "_flows",
    "_frames", "_large", "_names", "_outbox", "_publishing", "_requestcall", "_session", "_shapes", "_tunnelcall",
    "_tunnelflow", "_urls",
]  # fmt: skip
IMPURE = {"asyncio", "grpc", "socket", "time", "threading", "logging", "random", "os"}
SOURCES = sorted(ROOT.glob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_know_no_clock_no_loop_and_no_wire(name: str):
    assert not imports(ROOT / f"{name}.py") & IMPURE, "time is passed in, bytes go out; edges do the rest"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_only_testing_knows_the_daemon(path: Path):
    assert "irisd" not in imports(path) or path.stem == "testing"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_file_is_a_concept(path: Path):
    assert len(path.read_text().splitlines()) <= 450
