"""Which of gRPC's I/O engines a daemon and an app that stays on gRPC take."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from iris_client import _grpcio as of_sdk
from irisd import grpcio as of_daemon

BOTH = pytest.mark.parametrize("module", [of_daemon, of_sdk], ids=["daemon", "sdk"])


@BOTH
@pytest.mark.parametrize(
    ("release", "choice"),
    [("1.79.9", False), ("1.80.0", True), ("1.85.3", True), ("1.86.0", False), ("2.0", False), ("1.8", False)]
    + [("", False), ("1", False), ("1.84rc1", False), ("x.80", False), ("1.84.0rc1", True)],
)
def test_only_where_there_is_a_choice(module: ModuleType, release: str, choice: bool):
    assert module.has_choice(release) is choice


def test_daemon_and_sdk_choose_alike():
    assert (of_daemon.CHOICE, of_daemon.FIRST, of_daemon.LAST) == (of_sdk.CHOICE, of_sdk.FIRST, of_sdk.LAST)


def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


SHOW = """
import importlib, os, sys
module, first = sys.argv[1:]
if first:
    import grpc
importlib.import_module(module).import_grpc()
print("after", os.environ.get("GRPC_EXPERIMENTS"), "grpc" in sys.modules)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """A ``grpc`` that says what it finds when it is imported."""
    (tmp_path / "grpc.py").write_text('import os\nprint("found", os.environ.get("GRPC_EXPERIMENTS"))\n')
    return f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"


@BOTH
def test_it_is_chosen_while_grpc_is_imported_and_not_for_longer(module: ModuleType, stand_in: str):
    told = run(SHOW, module.__name__, "", PYTHONPATH=stand_in).stdout
    chosen = f"found {module.CHOICE}\nafter None True\n"
    assert told == (chosen if module.has_choice(version("grpcio")) else "after None False\n")


@BOTH
def test_who_has_chosen_is_left_alone(module: ModuleType, stand_in: str):
    for chosen in ("", "event_engine_fork"):
        told = run(SHOW, module.__name__, "", PYTHONPATH=stand_in, GRPC_EXPERIMENTS=chosen).stdout
        assert told == f"after {chosen} False\n"
    assert run(SHOW, module.__name__, "first", PYTHONPATH=stand_in).stdout == "found None\nafter None True\n"


@BOTH
def test_grpc_knows_what_is_set(module: ModuleType):
    """It complains about names it does not know, on standard error, whatever its verbosity."""
    if module.has_choice(version("grpcio")):
        assert "Unknown experiment" in run("import grpc", GRPC_EXPERIMENTS="no_such_thing").stderr
    assert run(SHOW, module.__name__, "").stderr == ""
