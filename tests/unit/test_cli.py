"""The command line: every mistake is one sentence and an exit code, never a traceback, never a key."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from irisd import __version__, cli
from irisd.config import OPTIONS
from irisd.keys import ServiceKey

SEED = bytes(range(32))


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "shop.key"
    path.touch(mode=0o600)
    path.write_text(ServiceKey("shop", SEED).to_text())
    return path


def irisd(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command, as a shell would."""
    return subprocess.run(
        [sys.executable, "-m", "irisd", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": os.environ["PATH"], **environment},
    )


def check(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(cli.irisd, ["check", "--json", *arguments], standalone_mode=False)
    return json.loads(result.stdout)


# ----------------------------------------------------------------------- check


def test_check_shows_every_setting_and_its_origin(key_file, tmp_path, monkeypatch):
    file = tmp_path / "irisd.toml"
    file.write_text('cloud = "north"\nkeys = ["shop.key"]\n')
    monkeypatch.setenv("IRISD_SEEDS", "127.0.0.1:1,127.0.0.1:2")
    shown = check("--config", str(file), "--max-body", "1MiB", "--socket-mode", "0600")
    assert shown["ok"] is True
    settings = shown["settings"]
    assert list(settings) == list(OPTIONS)
    assert settings["cloud"] == {"value": "north", "origin": f"{file}:1", "reloads": False}
    assert settings["seeds"] == {"value": ["127.0.0.1:1", "127.0.0.1:2"], "origin": "IRISD_SEEDS", "reloads": True}
    assert settings["max_body"] == {"value": 1_048_576, "origin": "--max-body", "reloads": False}
    assert settings["socket_mode"] == {"value": "0600", "origin": "--socket-mode", "reloads": False}
    assert settings["drain_timeout"] == {"value": 10.0, "origin": "default", "reloads": True}
    assert shown["keys"] == [{"file": str(key_file), "service": "shop", "key": ServiceKey("shop", SEED).key_id_hex}]


def test_check_as_text(monkeypatch):
    monkeypatch.setenv("IRISD_PRESET", "local")
    result = CliRunner().invoke(cli.irisd, ["check"])
    assert result.exit_code == 0
    lines = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    assert ["heartbeat_interval", "100ms", "preset local"] in lines
    assert ["drain_timeout*", "5s", "preset local"] in lines  # a star: a reload takes it up
    assert "* a new value is taken up by SIGHUP or `iris reload`; the others want a restart" in result.stdout
    assert ["attach_tcp", "-", "default"] in lines
    assert result.stdout.endswith("ok\n")


def test_the_file_may_be_named_by_a_variable(tmp_path, monkeypatch):
    file = tmp_path / "other.toml"
    file.write_text('name = "seven"')
    monkeypatch.setenv("IRISD_CONFIG", str(file))
    assert check()["settings"]["name"]["value"] == "seven"


def test_a_relative_socket_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check("--socket", "s.sock")["settings"]["socket"]["value"] == str(tmp_path / "s.sock")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seed", "nowhere"], "--seed: seeds: 'nowhere' is not host:port"),
        (["--config", "/nonexistent/irisd.toml"], "/nonexistent/irisd.toml: cannot be read: No such file"),
        (["--key", "/nonexistent/shop.key"], "there is no such file; make one with: irisd keys new"),
        (
            ["--attach-tcp", "127.0.0.1:0", "--token-file", "/nonexistent/t"],
            "token_file: /nonexistent/t cannot be read",
        ),
    ],
)
def test_check_says_what_is_wrong(arguments, complaint):
    shown = check(*arguments)
    assert shown["ok"] is False
    assert complaint in shown["error"]


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"#" * (2 << 20)], ids=["not text", "too large"])
def test_a_file_that_is_no_configuration(tmp_path, data):
    (tmp_path / "irisd.toml").write_bytes(data)
    assert "this is no configuration file" in check("--config", str(tmp_path / "irisd.toml"))["error"]


# ------------------------------------------------------------- the real command


def test_errors_are_one_line_and_a_code():
    result = irisd("run", "--max-body", "8 furlongs")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("irisd: error: --max-body: max_body: 'furlongs' is no unit of size")
    assert result.stderr.count("\n") == 1

    misspelt = irisd("check", IRISD_SEED="a:1")
    assert misspelt.returncode == 2
    assert "did you mean 'IRISD_SEEDS'?" in misspelt.stderr

    unknown = irisd("run", "--sed", "a:1")
    assert unknown.returncode == 2
    assert "--seed" in unknown.stderr
    assert "Traceback" not in unknown.stderr

    missing = irisd("run", "--key", "/nonexistent/shop.key")
    assert missing.returncode == 1
    assert "make one with: irisd keys new SERVICE" in missing.stderr


def test_version_and_help():
    assert irisd("--version").stdout == f"irisd {__version__}{cli.build()}\n"
    described = irisd("run", "--help").stdout
    assert all(f"--{option.flag}" in described for option in OPTIONS.values())


def test_the_demo_wants_a_file_that_is_there():
    result = irisd("demo", "--file", "/nonexistent")
    assert result.returncode == 2
    assert "'/nonexistent' does not exist" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    script = CliRunner().invoke(cli.irisd, ["completion", shell]).stdout
    assert "_IRISD_COMPLETE" in script


# ------------------------------------------------------------------------ keys


def test_a_new_key_in_a_redirected_file_is_private(tmp_path):
    path = tmp_path / "shop.key"
    with path.open("w") as file:
        path.chmod(0o644)
        subprocess.run([sys.executable, "-m", "irisd", "keys", "new", "shop"], stdout=file, check=True, timeout=30)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ServiceKey.parse(path.read_text()).service == "shop"


def test_two_new_keys_differ():
    first, second = irisd("keys", "new", "shop"), irisd("keys", "new", "shop")
    assert ServiceKey.parse(first.stdout) != ServiceKey.parse(second.stdout)


def test_a_key_is_never_overwritten(tmp_path):
    path = str(tmp_path / "shop.key")
    made = irisd("keys", "new", "shop", "--output", path, "--comment", "for the test")
    assert made.returncode == 0
    before = Path(path).read_text()
    assert "comment: for the test" in before
    again = irisd("keys", "new", "shop", "--output", path)
    assert again.returncode == 1
    assert "never overwritten" in again.stderr
    assert Path(path).read_text() == before
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_show_tells_which_key_and_not_the_key(key_file):
    for arguments in (["keys", "show", str(key_file)], ["keys", "show", "--json", str(key_file)]):
        result = irisd(*arguments)
        assert result.returncode == 0
        assert ServiceKey("shop", SEED).key_id_hex in result.stdout
        assert SEED.hex() not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("name", "complaint"), [("a shop", "letters, digits"), ("_iris.x", "reserved"), ("x" * 201, "at most 200 bytes")]
)
def test_names_that_no_key_can_have(name, complaint):
    result = irisd("keys", "new", name)
    assert result.returncode == 1
    assert complaint in result.stderr
    assert result.stdout == ""


def test_a_key_others_may_read_is_refused(key_file):
    key_file.chmod(0o644)
    result = irisd("check", "--key", str(key_file))
    assert result.returncode == 1
    assert "chmod 600" in result.stderr
    assert SEED.hex() not in result.stdout + result.stderr
