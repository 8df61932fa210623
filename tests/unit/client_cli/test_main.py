"""The command line as a whole: help, versions, mistakes, signals and pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import click
import pytest

import iris_client as iris
from iris_client.cli.main import BUILD, cli, run

NOBODY = "unix:///nonexistent/irisd.sock"


def test_without_arguments_it_helps_and_is_a_mistake(capsys):
    assert run([]) == 2
    out, err = capsys.readouterr()
    assert "Talk to names instead of addresses" in out
    assert err == ""


def test_help_shows_every_command_with_examples_and_exit_codes(capsys):
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    for name in cli.commands:
        assert f"\n  {name} " in out
    assert "Examples:" in out
    assert "3 no member" in out
    assert "..." not in out.partition("Commands:")[2]  # no summary is cut off


@pytest.mark.parametrize("name", list(cli.commands))
def test_every_command_explains_itself_with_examples(name, capsys):
    assert run([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: iris {name}" in out
    assert "Examples:" in out
    assert f"iris {name}" in out.partition("Examples:")[2]


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"iris {iris.__version__}{BUILD}\n"


def test_a_mistyped_command_is_guessed(capsys):
    assert run(["reqest", "x"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "iris: error: no command 'reqest'; did you mean 'request'?",
        "iris: hint: iris --help tells more",
    ]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["request"], "Missing argument 'NAME'"),
        (["request", "x", "y", "--nope"], "--nope"),
        (["request", "x", "y", "-H", "nocolon"], "write key:value"),
        (["request", "x", "y", "--timeout", "soon"], "not a duration"),
        (["request", "x", "y", "-H", "a:1", "-H", "a:2"], "twice"),
        (["--url", "http://x", "request", "x", "y"], "expected unix:///path"),
        (["request", "x", "y", "--token-file", "/nonexistent", "--url", NOBODY], "No such file"),
        (["completion", "tcsh"], "tcsh"),
    ],
)
def test_mistakes_exit_with_2_and_say_what_would_be_right(argv, said, capsys):
    assert run(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("iris: error: ")
    assert said in err


@pytest.mark.parametrize("command", [["status"], ["request", "x", "y"], ["subscribe", "x"], ["tunnel", "x"]])
def test_no_daemon_says_where_it_looked_and_how_to_start_one(command, capsys):
    started = time.monotonic()
    assert run(["--url", NOBODY, "--timeout", "100ms", *command]) == 1
    assert time.monotonic() - started < 3
    err = capsys.readouterr().err
    assert err.startswith("iris: error: no Iris daemon answered within 0.1 s")
    assert NOBODY in err
    assert "Start one with: irisd" in err


def test_errors_for_programs(capsys):
    assert run(["status", "--json", "--url", NOBODY, "--timeout", "50ms"]) == 1
    told = json.loads(capsys.readouterr().err)
    assert (told["error"], told["exit"]) == ("DaemonUnavailable", 1)


def test_json_after_two_dashes_is_an_argument(capsys):
    assert run(["request", "x", "--url", NOBODY, "--timeout", "50ms", "--", "--json"]) == 1
    assert capsys.readouterr().err.startswith("iris: error: ")


@pytest.fixture
def extra():
    """A command that does what the test wants."""

    def add(function):
        cli.add_command(click.Command("extra", callback=function))

    yield add
    cli.commands.pop("extra", None)


def test_interrupted(extra, capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    extra(interrupted)
    assert run(["extra"]) == 130
    assert capsys.readouterr() == ("", "")


def test_an_error_inside_a_group_of_tasks_is_the_error(extra, capsys):
    def fail() -> None:
        raise ExceptionGroup("tasks", [ExceptionGroup("more", [iris.NoMember("nobody")])])

    extra(fail)
    assert run(["extra"]) == 3
    assert capsys.readouterr().err.startswith("iris: error: nobody")


@pytest.mark.parametrize("defect", [ZeroDivisionError("x"), ExceptionGroup("tasks", [ZeroDivisionError("x")])])
def test_a_defect_keeps_its_traceback(extra, defect):
    def fail() -> None:
        raise defect

    extra(fail)
    with pytest.raises(type(defect)):
        run(["extra"])


def test_a_reader_that_leaves_ends_it_quietly():
    script = (
        "import sys; from iris_client.cli import main\n"
        "from iris_client.cli.main import cli\nimport click\n"
        "cli.add_command(click.Command('flood', callback=lambda: [print('x' * 1000) for _ in range(10000)]))\n"
        "sys.argv = ['iris', 'flood']; main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(10) == 141


def test_closed_streams_are_empty_ones():
    script = f"exec {sys.executable} -m iris_client.cli request x --url {NOBODY} --timeout 50ms <&- >&-"
    result = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, text=True, timeout=30)
    assert result.returncode == 1
    assert result.stderr.startswith("iris: error: no Iris daemon answered")


def test_without_click_it_says_what_to_install(tmp_path):
    script = "import sys; sys.modules['click'] = None; from iris_client.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert result.returncode == 1
    assert result.stderr == "iris: error: the command line needs click: pip install 'iris-client[cli]'\n"


def test_the_module_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "iris_client.cli", "--version"], capture_output=True, text=True, timeout=30
    )
    assert (result.returncode, result.stdout) == (0, f"iris {iris.__version__}{BUILD}\n")


@pytest.mark.parametrize(("shell", "holds"), [("bash", "complete -o"), ("zsh", "#compdef iris"), ("fish", "complete ")])
def test_completion_scripts(shell, holds, capsys, monkeypatch):
    assert run(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert holds in out
    assert "_IRIS_COMPLETE" in out
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert run(["completion"]) == 0
    assert capsys.readouterr().out == out


def test_completion_for_no_shell_in_particular(capsys, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/csh")
    assert run(["completion"]) == 2
    assert "One of bash, zsh, fish" in capsys.readouterr().err


def complete(*words: str, url: str = NOBODY) -> list[str]:
    """What a shell would offer for the last word."""
    env = os.environ | {
        "_IRIS_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["iris", *words]),
        "COMP_CWORD": str(len(words)),
        "IRIS_URL": url,
    }
    result = subprocess.run(
        [sys.executable, "-m", "iris_client.cli"], env=env, capture_output=True, text=True, timeout=30
    )
    assert result.stderr == ""
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def test_completing_commands_and_options():
    assert complete("sub") == ["subscribe"]
    assert "--when-full" in complete("subscribe", "--")


def test_completing_names_without_a_daemon_offers_none_and_says_nothing():
    started = time.monotonic()
    assert complete("request", "data") == []
    assert time.monotonic() - started < 5
