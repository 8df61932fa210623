"""What is shipped for operators says what the daemon does: the example file, the unit, the image."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

import irisd
from irisd.config import OPTIONS, Config, load

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = (ROOT / "deploy" / "irisd.toml").read_text()
SETTING = re.compile(r"^#([a-z_]+) = (.+)$", re.MULTILINE)

# These have no default that could be written down, or make no sense alone: the example shows a form.
SHOWN_AS_EXAMPLES = {
    "admin_socket",
    "state_dir",
    "name",
    "socket",
    "socket_group",
    "attach_tcp",
    "token_file",
    "tls_cert",
    "tls_key",
}


def test_the_example_is_inert_as_shipped():
    assert load(file_text=EXAMPLE) == load()


def test_the_example_has_every_setting_in_order():
    assert [name for name, _ in SETTING.findall(EXAMPLE)] == list(OPTIONS)


@pytest.mark.parametrize(("name", "value"), SETTING.findall(EXAMPLE))
def test_the_example_shows_the_defaults(name, value):
    partners = {"attach_tcp": 'token_file = "t"', "tls_cert": 'tls_key = "k"', "tls_key": 'tls_cert = "c"'}
    needs_tcp = name in {"token_file", "tls_cert", "tls_key"}
    text = f"{name} = {value}\n{partners.get(name, '')}\n"
    if needs_tcp:
        text += 'attach_tcp = "127.0.0.1:0"\n' + ('token_file = "t"\n' if name != "token_file" else "")
    found = getattr(load(file_text=text).config, name)
    if name in SHOWN_AS_EXAMPLES:
        assert found
    elif name == "listen":
        assert found == load().config.listen
    else:
        assert found == getattr(Config(), name)


def unit() -> list[tuple[str, str]]:
    lines = (ROOT / "deploy" / "irisd.service").read_text().splitlines()
    return [(key, value) for key, _, value in (line.partition("=") for line in lines if "=" in line and line[0] != "#")]


def test_the_unit_waits_for_the_drain():
    settings = dict(unit())
    assert float(settings["TimeoutStopSec"]) > Config().drain_timeout
    assert settings["Type"] == "simple"
    assert settings["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert settings.get("KillSignal", "SIGTERM") == "SIGTERM"
    assert settings["NoNewPrivileges"] == "yes"
    variables = [value.partition("=")[0] for key, value in unit() if key == "Environment"]
    assert set(variables) <= {option.variable for option in OPTIONS.values()}


def test_the_unit_is_one_systemd_can_read():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((ROOT / "deploy" / "irisd.service").read_text())
    assert parser.sections() == ["Unit", "Service", "Install"]


def test_containers_are_given_the_time_to_drain():
    assert re.search(r"^STOPSIGNAL SIGTERM$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    compose = (ROOT / "docker-compose.yml").read_text()
    [grace] = re.findall(r"stop_grace_period: (\d+)s", compose)
    assert int(grace) > Config().drain_timeout


def test_the_image_says_which_version_it_is():
    dockerfile = (ROOT / "Dockerfile").read_text()
    compose = (ROOT / "docker-compose.yml").read_text()
    assert f'image.version="{irisd.__version__}"' in dockerfile
    assert set(re.findall(r"image: irisd:(\S+)", compose)) == {irisd.__version__}
    variables = set(re.findall(r"\bIRISD_[A-Z_]+", dockerfile + compose))
    assert variables <= {option.variable for option in OPTIONS.values()}
    assert re.search(r"^USER \d+:\d+$", dockerfile, re.MULTILINE)
