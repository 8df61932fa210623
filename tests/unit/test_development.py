"""The development daemon's key: private, gone afterwards, never put where others could swap it."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from irisd import cli, development
from irisd.config import load
from irisd.errors import RuntimeFolderError
from irisd.keys.files import load_key_file
from irisd.status import ListenerInfo


def test_the_key_is_private_and_goes_with_the_daemon(tmp_path):
    folder = tmp_path / "irisd"
    with development.fresh_key(folder) as (path, key):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert load_key_file(path) == key
        assert key.service == "dev"
    assert list(folder.iterdir()) == []


def test_each_start_has_another_key(tmp_path):
    with development.fresh_key(tmp_path) as (_, first):
        pass
    with development.fresh_key(tmp_path) as (_, second):
        assert first != second


def test_the_key_goes_when_the_daemon_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), development.fresh_key(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_keys_of_the_dead_are_removed_and_those_of_the_living_kept(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(timeout=30)
    dead, living, mine = (
        tmp_path / f"development-{ended.pid}.key",
        tmp_path / "development-1.key",
        tmp_path / "shop.key",
    )
    unlikely = tmp_path / f"development-{10**30}.key"
    for path in (dead, living, mine, unlikely):
        path.touch()
    with development.fresh_key(tmp_path):
        assert {entry.name for entry in tmp_path.iterdir()} == {
            "development-1.key",
            "shop.key",
            f"development-{os.getpid()}.key",
        }


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: path.touch(), "is not a folder"),
        (lambda path: (path.mkdir(), path.chmod(0o777)), "everybody may write to it"),
        (lambda path: path.with_name("other").mkdir(), ""),
    ],
    ids=["a file", "open to all", "missing"],
)
def test_where_no_key_is_put(tmp_path, make, complaint):
    folder = tmp_path / "irisd"
    make(folder)
    if not complaint:
        with pytest.raises(RuntimeFolderError, match="does not exist"), development.fresh_key(folder / "deeper"):
            pass
        return
    with pytest.raises(RuntimeFolderError, match=complaint), development.fresh_key(folder):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_no_key_in_somebody_elses_folder(tmp_path):
    folder = tmp_path / "irisd"
    folder.mkdir()
    os.chown(folder, 12_345, -1)
    with pytest.raises(RuntimeFolderError, match="belongs to another user"), development.fresh_key(folder):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RuntimeFolderError, match="not writable"), development.fresh_key(tmp_path):
        pass


def test_the_second_daemons_command_is_one_the_command_line_takes(tmp_path):
    config = load(flags={"socket": str(tmp_path / "a folder" / "irisd.sock"), "name": "one"}).config
    (tmp_path / "a folder").mkdir()
    with development.fresh_key(tmp_path / "a folder") as (path, _):
        command = shlex.split(development.second_daemon(config, path, "127.0.0.1:7511"))
        assert command[:2] == ["irisd", "run"]
        result = CliRunner().invoke(cli.irisd, ["check", *command[2:]], standalone_mode=False)
        assert result.exit_code == 0, result.output
    assert "irisd-2.sock" in result.stdout


def test_the_welcome_names_every_listener():
    listeners = [ListenerInfo("links", "tcp://127.0.0.1:40001"), ListenerInfo("attach", "unix:///run/irisd/irisd.sock")]
    config = load(flags={"socket": "/run/irisd/irisd.sock", "name": "one"}).config
    text = development.welcome(config, Path("/run/irisd/development-1.key"), listeners)
    assert "unix:///run/irisd/irisd.sock" in text
    assert "--seed 127.0.0.1:40001" in text
    assert "IRIS_URL=unix:///run/irisd/irisd-2.sock" in text
