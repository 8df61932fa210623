"""The house, as tests: who may import whom, what the pure rooms may not touch, how long a file may be."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest

import irisd

ROOT = Path(__file__).resolve().parent.parent
DAEMON = ROOT / "irisd"
PROTO = ROOT / "proto"
STUBS = ROOT / "client" / "iris_proto"
MAX_LINES = 450
MAX_TEST_LINES = 900
"""A test file mirrors one module, and may say more about it than the module itself."""

EDGES = {"attach", "foreign", "link", "discovery", "transport", "admin", "logs", "daemon", "demo", "development"} | {
    "cli",
    "grpcio",
    "__main__",
}
"""Rooms that touch the world. A module inside one is still held to purity when its docstring says ``(pure)``."""

PURE_INSIDE_EDGES = {"link/handshake.py", "link/noise.py", "link/session.py"}

BANNED_MODULES = {
    "asyncio": "the brain is a plain synchronous object; only daemon.py runs it on an event loop",
    "selectors": "edges wait for the world, the brain is told about it",
    "select": "edges wait for the world, the brain is told about it",
    "socket": "bytes come in as arguments and leave through outboxes",
    "ssl": "bytes come in as arguments and leave through outboxes",
    "threading": "the brain runs in one thread and needs no locks",
    "concurrent": "the brain runs in one thread and needs no pools",
    "subprocess": "the brain starts nothing",
    "time": "time is passed as `now: float`, so that a simulation owns the clock",
    "datetime": "time is passed as `now: float`, so that a simulation owns the clock",
    "secrets": "randomness is passed in, so that a run can be repeated from its seed",
    "uuid": "randomness is passed in, so that a run can be repeated from its seed",
    "grpc": "attach/ speaks gRPC, the brain speaks model",
    "iris_proto": "attach/ turns stubs into model values",
    "iris_client": "the daemon does not know its SDK",
    "logging": "brains do not log: they return facts, and the daemon logs those",
    "structlog": "brains do not log: they return facts, and the daemon logs those",
    "uvloop": "the brain is a plain synchronous object; only daemon.py runs it on an event loop",
    "zeroconf": "discovery/ finds candidates, the brain is told about them",
}
RANDOM_ALLOWED = {"Random"}
NO_RANDOM = "randomness is passed in as a Random, so that a run can be repeated from its seed"
BANNED_CALLS = {
    "os.urandom": "randomness is passed in",
    "os.getrandom": "randomness is passed in",
    "print": "brains do not print",
}


def modules() -> list[Path]:
    return sorted(DAEMON.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(DAEMON).as_posix()


def is_pure(path: Path) -> bool:
    room = name_of(path).partition("/")[0].removesuffix(".py")
    if room not in EDGES or name_of(path) in PURE_INSIDE_EDGES:
        return True
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return "(pure)" in docstring.partition("\n\n")[0]


def impurities(source: str) -> Iterator[str]:
    """Yield what a pure room must not do, one sentence each, with the line and the reason."""
    nodes = list(ast.walk(ast.parse(source)))
    # `random` is also a good name for the Random that was passed in: only the module is banned.
    module_random = any(isinstance(node, ast.Import) and "random" in (a.name for a in node.names) for node in nodes)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (_banned_import(node, alias.name) for alias in node.names if _top(alias.name) in BANNED_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            if _top(node.module or "") in BANNED_MODULES:
                yield _banned_import(node, node.module or "")
            for alias in node.names:
                if node.module == "random" and alias.name not in RANDOM_ALLOWED:
                    yield f"line {node.lineno}: from random import {alias.name}: {NO_RANDOM}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            written = f"{node.value.id}.{node.attr}"
            if written in BANNED_CALLS:
                yield f"line {node.lineno}: {written}: {BANNED_CALLS[written]}"
            if module_random and node.value.id == "random" and node.attr not in RANDOM_ALLOWED:
                yield f"line {node.lineno}: {written}: {NO_RANDOM}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BANNED_CALLS:
            yield f"line {node.lineno}: {node.func.id}(): {BANNED_CALLS[node.func.id]}"
        elif isinstance(node, (ast.AsyncFunctionDef, ast.Await)):
            yield f"line {node.lineno}: async code: {BANNED_MODULES['asyncio']}"


def _top(module: str) -> str:
    return module.partition(".")[0]


def _banned_import(node: ast.Import | ast.ImportFrom, module: str) -> str:
    return f"line {node.lineno}: imports {module}: {BANNED_MODULES[_top(module)]}"


def tracked() -> list[Path]:
    """Every file of the repository that belongs in it."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=30).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: there is no list of tracked files")
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""


# ------------------------------------------------------------------ import law


@pytest.mark.timeout(120)
def test_import_law():
    """The contracts stand in pyproject.toml; a room without a declared place fails too."""
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", [path for path in modules() if is_pure(path)], ids=name_of)
def test_pure_rooms_touch_nothing(path):
    found = list(impurities(path.read_text()))
    assert not found, f"irisd/{name_of(path)} belongs to a pure room:\n  " + "\n  ".join(found)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("import asyncio", "event loop"),
        ("import asyncio.events", "event loop"),
        ("from time import monotonic", "now: float"),
        ("import random\nrandom.random()", "Random"),
        ("from random import choice", "Random"),
        ("import os\nos.urandom(8)", "randomness"),
        ("def f():\n    import socket", "outboxes"),
        ("async def f(): ...", "async"),
        ("from grpc import aio", "attach/"),
        ("print(1)", "print"),
    ],
)
def test_the_check_itself_finds(source, word):
    assert any(word in sentence for sentence in impurities(source))


def test_the_check_itself_lets_pass():
    fine = ["import math, heapq", "from random import Random", "def f(random: Random): random.random()"]
    assert list(impurities("\n".join(fine))) == []


def test_some_rooms_are_pure_and_some_are_not():
    pure = {name_of(path) for path in modules() if is_pure(path)}
    assert {"model.py", "errors.py", "config/layers.py", "link/noise.py"} <= pure
    assert "attach/server.py" not in pure


# ------------------------------------------------------------------------ files


def test_a_file_is_one_concept():
    long = {}
    for path in tracked():
        if path.suffix == ".py" and STUBS not in path.parents:
            lines = len(path.read_text().splitlines())
            if lines > (MAX_TEST_LINES if "tests" in path.relative_to(ROOT).parts else MAX_LINES):
                long[str(path.relative_to(ROOT))] = lines
    assert not long, f"past {MAX_LINES} lines a file holds more than one concept: {long}"


def test_every_room_says_what_it_is():
    bare = [
        name_of(path)
        for path in modules()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not bare, f"modules without a docstring: {bare}"


def test_nothing_unfinished_is_tracked():
    words = re.compile(
        r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "raise NotImplemented" + "Error")) + r")\b"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if STUBS not in path.parents  # a generator's words
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if words.search(line)
    ]
    assert not found, f"finish it, or take it out: {found}"


def test_no_package_registry_is_named():
    """Where packages come from is the business of whoever installs them."""
    hosts = re.compile(
        "|".join(re.escape(host) for host in ("pypi" + ".org", "python" + "hosted.org", "registry.npmjs" + ".org"))
    )
    setting = re.compile(r"^\s*(--)?(extra-)?index-url\b", re.MULTILINE)
    found = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if hosts.search(text_of(path)) or setting.search(text_of(path))
    ]
    assert not found, f"these name a package registry: {found}"


# -------------------------------------------------------------------- packaging


def metadata(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def test_versions_are_one():
    daemon, client = metadata(ROOT), metadata(ROOT / "client")
    assert daemon["version"] == client["version"] == irisd.__version__
    assert f"iris-client[cli]=={daemon['version']}" in daemon["dependencies"]
    assert client["optional-dependencies"]["testing"] == [f"irisd=={daemon['version']}"]


def test_the_sdk_needs_two_packages():
    wanted = [line for line in requires("iris-client") or [] if "extra ==" not in line]
    assert sorted(re.split(r"[^a-z]", line)[0] for line in wanted) == ["grpcio", "protobuf"]


def name_and_rest(requirement: str) -> tuple[str, str]:
    """Split ``Some_Name[extra]>=1 ; marker`` into its name, as indexes write it, and the rest."""
    match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?(.*)", requirement)
    assert match is not None, requirement
    return match[1].lower().replace("_", "-"), match[2].partition(";")[0].strip()


def test_constraints_cover_what_is_asked_for():
    project = metadata(ROOT)
    extras = project["optional-dependencies"]
    asked = {name_and_rest(line)[0] for line in [*project["dependencies"], *extras["dev"], *extras["test"]]}
    pinned = {name_and_rest(line)[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"}
    missing = asked - pinned - {"iris-client", "irisd"}
    assert not missing, f"not in constraints.txt: {sorted(missing)}; run `make constraints`"


def test_the_oldest_versions_are_those_we_say():
    said = [*metadata(ROOT)["dependencies"], *metadata(ROOT / "client")["dependencies"]]
    lowest = {name: rest.removeprefix(">=") for name, rest in map(name_and_rest, said) if rest.startswith(">=")}
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    tried = dict(name_and_rest(line) for line in lines if line[0] != "#")
    assert set(lowest) == set(tried)
    for name, version in lowest.items():
        assert tried[name].startswith(f"=={version}."), f"{name}: {version} is allowed, {tried[name]} is tried"


# ------------------------------------------------------------------------ stubs


def test_stubs_are_those_of_the_protos():
    lines = (STUBS / "SOURCES.sha256").read_text().splitlines()
    recorded = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    actual = {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(PROTO.rglob("*.proto"))
    }
    assert recorded == actual, "proto/ and client/iris_proto differ: run `make proto`"


def test_stubs_run_on_the_oldest_protobuf_we_allow():
    generated = [path.read_text() for path in STUBS.rglob("*_pb2.py")]
    assert generated
    assert all("Protobuf Python Version: 5.29." in text for text in generated), "generate with grpcio-tools 1.71"
