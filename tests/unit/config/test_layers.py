"""Precedence, origins, suggestions, and the settings that must agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irisd.config import OPTIONS, Address, Config, Listener, Surroundings, load
from irisd.errors import ConfigError

KEYED = {"keys": ["shop.key"]}


def around(root: bool = False, /, **environment: str) -> Surroundings:
    return Surroundings(environment=environment, hostname="host-1.example", root=root)


def test_the_development_daemon_stays_on_loopback():
    loaded = load(surroundings=around())
    assert loaded.config.development
    assert loaded.config.listen == (Listener(Address("127.0.0.1", 7511)),)
    assert loaded.origins["listen"] == "default without a key: loopback"
    assert loaded.config.name == "host-1.example"
    assert loaded.config.attach_tcp is None


def test_a_key_opens_the_listener():
    loaded = load(flags=KEYED, surroundings=around())
    assert not loaded.config.development
    assert loaded.config.listen == (Listener(Address("0.0.0.0", 7511)),)


def test_flag_over_variable_over_file_over_preset_over_default():
    file = 'heartbeat_interval = "4s"\npreset = "local"\n'
    environment = {"IRISD_HEARTBEAT_INTERVAL": "3s"}

    everything = load(flags={"heartbeat_interval": "2s"}, surroundings=around(**environment), file_text=file)
    assert (everything.config.heartbeat_interval, everything.origins["heartbeat_interval"]) == (
        2.0,
        "--heartbeat-interval",
    )

    no_flag = load(flags={"heartbeat_interval": None}, surroundings=around(**environment), file_text=file)
    assert (no_flag.config.heartbeat_interval, no_flag.origins["heartbeat_interval"]) == (
        3.0,
        "IRISD_HEARTBEAT_INTERVAL",
    )

    no_variable = load(surroundings=around(), file_text=file, file_name="/etc/irisd/irisd.toml")
    assert no_variable.config.heartbeat_interval == 4.0
    assert no_variable.origins["heartbeat_interval"] == "/etc/irisd/irisd.toml:1"

    preset = load(surroundings=around(IRISD_PRESET="local"))
    assert (preset.config.heartbeat_interval, preset.origins["heartbeat_interval"]) == (0.1, "preset local")

    default = load(surroundings=around())
    assert (default.config.heartbeat_interval, default.origins["heartbeat_interval"]) == (1.0, "default")


def test_lists_from_each_source():
    seeds = (Address("a", 1), Address("b", 2))
    assert load(flags={**KEYED, "seeds": ["a:1", "b:2"]}).config.seeds == seeds
    assert load(flags=KEYED, surroundings=around(IRISD_SEEDS=" a:1, b:2,")).config.seeds == seeds
    assert load(flags=KEYED, file_text='seeds = ["a:1", "b:2"]').config.seeds == seeds
    assert load(flags=KEYED, file_text='seeds = "a:1,b:2"').config.seeds == seeds


def test_an_empty_variable_empties_a_list_and_unsets_the_rest():
    emptied = load(flags=KEYED, surroundings=around(IRISD_SEEDS=""), file_text='seeds = ["a:1"]')
    assert emptied.config.seeds == ()
    assert emptied.origins["seeds"] == "IRISD_SEEDS"
    assert load(surroundings=around(IRISD_CLOUD="")).config.cloud == "default"


def test_listeners_may_name_services():
    file = 'listen = ["127.0.0.1:1", { address = "127.0.0.1:2", services = ["shop"] }]'
    assert load(file_text=file).config.listen == (
        Listener(Address("127.0.0.1", 1)),
        Listener(Address("127.0.0.1", 2), ("shop",)),
    )


def test_paths_in_a_file_are_beside_the_file():
    file = 'keys = ["shop.key", "/abs.key"]\nsocket = "s.sock"'
    config = load(file_text=file, file_name="/etc/irisd/irisd.toml").config
    assert config.keys == ("/etc/irisd/shop.key", "/abs.key")
    assert config.socket == "/etc/irisd/s.sock"
    assert load(flags={"keys": ["shop.key"]}, file_name="/etc/irisd/irisd.toml").config.keys == ("shop.key",)


@pytest.mark.parametrize(
    ("surroundings", "path"),
    [
        (around(XDG_RUNTIME_DIR="/run/user/7"), "/run/user/7/irisd/irisd.sock"),
        (around(RUNTIME_DIRECTORY="/run/irisd:/run/other"), "/run/irisd/irisd.sock"),
        (around(True), "/run/irisd/irisd.sock"),
        (around(TMPDIR="/var/folders/x/"), "/var/folders/x/irisd/irisd.sock"),
        (around(XDG_RUNTIME_DIR="relative"), "/tmp/irisd/irisd.sock"),
        (around(), "/tmp/irisd/irisd.sock"),
    ],
)
def test_the_socket_is_where_apps_look(surroundings, path):
    assert load(surroundings=surroundings).config.socket == path


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("web 1", "web1"),
        ("", "localhost"),
        ("..", "localhost"),
        ("a..b", "a.b"),
        ("höst", "hst"),
        ("x" * 300, "x" * 200),
    ],
)
def test_any_hostname_gives_a_usable_name(hostname, name):
    loaded = load(surroundings=Surroundings(hostname=hostname))
    assert loaded.config.name == name
    assert OPTIONS["name"].value(name) == name


# ------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("\nseed = []", "irisd.toml:2: there is no setting 'seed'; did you mean 'seeds'?"),
        ("[limits]\nx = 1", "irisd.toml:1: [limits]: settings stand by themselves, without sections"),
        ("seeds = [", "irisd.toml: not valid TOML"),
        ('max_body = "8 furlongs"', "irisd.toml:1: max_body: 'furlongs' is no unit of size"),
        ('max_body = "2GiB"', "irisd.toml:1: max_body: 2GiB is too large; the most is 1GiB"),
        ("max_body = 1", "irisd.toml:1: max_body: 1B is too small; the least is 1KiB"),
        ('preset = "wan"', "irisd.toml:1: preset: 'wan' is none of lan, local"),
        ("name = 7", "irisd.toml:1: name: expected text in quotes, not 7"),
        ('seeds = ["a:0"]', "irisd.toml:1: seeds: 'a:0': port 0"),
        ("socket_mode = 660", 'irisd.toml:1: socket_mode: expected permissions such as "0660", not 660'),
    ],
)
def test_what_a_file_may_get_wrong(file, message):
    with pytest.raises(ConfigError) as caught:
        load(file_text=file)
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


def test_an_unknown_variable_suggests_the_nearest():
    with pytest.raises(ConfigError, match="IRISD_SEED; did you mean 'IRISD_SEEDS'"):
        load(surroundings=around(IRISD_SEED="a:1"))


def test_variables_that_are_not_settings_are_left_alone():
    kubernetes = {"IRISD_SERVICE_HOST": "10.0.0.1", "IRISD_PORT": "tcp://10.0.0.1:7511", "IRISD_PORT_7511_TCP": "x"}
    kubernetes |= {"IRISD_SERVICE_PORT_LINKS": "7511", "IRISD_CONFIG": "/x", "IRIS_URL": "unix:///x", "PATH": "/bin"}
    assert load(surroundings=around(**kubernetes)).config == load(surroundings=around()).config


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"listen": ["0.0.0.0:7511"]}, "without a key a daemon stays on loopback"),
        ({"seeds": ["a:1"]}, "a daemon without a key cannot join others; make a key first"),
        ({"attach_tcp": "127.0.0.1:7510"}, "attach_tcp wants token_file"),
        ({"attach_tcp": "0.0.0.0:7510", "token_file": "t"}, "off loopback wants tls_cert and tls_key"),
        ({"token_file": "t"}, "token_file is for attach_tcp, which is not set"),
        ({"tls_cert": "c"}, "tls_cert wants tls_key too"),
        ({"max_body": "64MiB"}, "peer_outbox must hold at least two bodies of max_body"),
        ({"request_queue": "1MiB"}, "request_queue must hold at least one body of max_body"),
        ({"max_handshakes": "8"}, "max_handshakes_per_address must not be above max_handshakes"),
        ({"keys": ["a", "a"]}, "the same file is named twice"),
    ],
)
def test_settings_must_agree(flags, message):
    with pytest.raises(ConfigError, match=message):
        load(flags=flags)


def test_settings_that_do_agree():
    config = load(
        flags={"attach_tcp": "0.0.0.0:7510", "token_file": "t", "tls_cert": "c", "tls_key": "k", "listen": ["[::1]:0"]}
    ).config
    assert config.attach_tcp == Address("0.0.0.0", 7510)


# ------------------------------------------------------------------ the table


def test_every_row_reads_back():
    loaded = load(
        flags={**KEYED, "listen": ["0.0.0.0:1=shop", "[::1]:2"], "socket_mode": "0600", "drain_timeout": "1.5s"}
    )
    for name, text, origin in loaded.rows():
        assert origin
        if text or OPTIONS[name].many:
            assert OPTIONS[name].value(text) == getattr(loaded.config, name), name


def test_every_setting_has_help_and_its_own_flag():
    assert all(option.help and not option.help.endswith(".") for option in OPTIONS.values())
    assert len({option.flag for option in OPTIONS.values()}) == len(OPTIONS)
    assert list(OPTIONS) == [row[0] for row in load().rows()]


def test_a_configuration_cannot_be_changed():
    with pytest.raises(AttributeError):
        Config().name = "other"  # type: ignore[misc]


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_a_config_error(text):
    try:
        load(file_text=text)
    except ConfigError as error:
        assert str(error)


def test_deep_nesting_is_an_error_not_a_crash():
    with pytest.raises(ConfigError):
        load(file_text="seeds = " + "[" * 100_000)
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load(file_text="#" * (1 << 21))


@pytest.mark.parametrize(
    ("environment", "flags", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/irisd:/other"}, {}, "/var/lib/irisd"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, {"keys": ["k"]}, "/run/user/7/irisd/irisd.state"),
        ({}, {"keys": ["k"], "socket": "/tmp/two.sock"}, "/tmp/two.state"),
        ({}, {"keys": ["k"], "listen": ["127.0.0.1:0"]}, ""),
        ({}, {}, ""),
        ({}, {"state_dir": "/srv/state"}, "/srv/state"),
    ],
)
def test_where_addresses_are_kept(environment, flags, folder):
    loaded = load(flags=flags, surroundings=Surroundings(environment))
    assert loaded.config.state_dir == folder


@pytest.mark.parametrize("word", ["eth0", "br-1a2b", "eth0.7", "192.0.2.7", "2001:db8::7", "fe80::7%eth0"])
def test_interfaces_by_name_or_address(word):
    assert load(flags={"interfaces": [word]}).config.interfaces == (word,)


@pytest.mark.parametrize(("name", "value"), [("interfaces", ["eth 0"]), ("interfaces", [""]), ("multicast", "maybe")])
def test_what_makes_no_sense_for_discovery_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        load(flags={name: value})


def test_the_admin_socket_lies_beside_the_other_unless_it_is_off():
    loaded = load(flags={"socket": "/run/irisd/irisd.sock"})
    assert loaded.config.admin_socket == "/run/irisd/irisd-admin.sock"
    assert loaded.origins["admin_socket"] == "default: beside socket"
    for off in ("off", ""):
        loaded = load(file_text=f'admin_socket = "{off}"\n', file_name="/etc/irisd/irisd.toml")
        assert loaded.config.admin_socket == ""
        assert loaded.origins["admin_socket"] == "/etc/irisd/irisd.toml:1"
    loaded = load(file_text='admin_socket = "a.sock"\n', file_name="/etc/irisd/irisd.toml")
    assert loaded.config.admin_socket == "/etc/irisd/a.sock"
    loaded = load(flags={"socket": "/" + "x" * 100})
    assert loaded.config.admin_socket == ""
    assert "too long" in loaded.origins["admin_socket"]
    with pytest.raises(ConfigError, match="apps attach at that path"):
        load(flags={"socket": "/s.sock", "admin_socket": "/s.sock"})
