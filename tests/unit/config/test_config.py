"""Where the configuration comes from, and how it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetuned import config, config_sources
from finetuned.domain.errors import ConfigError

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "configuration.md"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def load(file: Path | None = None, environ: dict[str, str] | None = None, **given: Any) -> config.Config:
    return config.load(file, given, {"HOME": "/home/ada"} | (environ or {}))


def test_the_defaults_are_the_users_own_directories_and_loopback() -> None:
    chosen = load()
    assert chosen.state_dir == Path("/home/ada/.local/state/finetuned")
    assert chosen.socket == Path("/home/ada/.local/state/finetuned/finetuned.sock")
    assert chosen.address == ("127.0.0.1", 8642)
    assert load(environ={"XDG_STATE_HOME": "/s"}).state_dir == Path("/s/finetuned")


def test_the_file_beats_the_defaults_the_environment_the_file_and_the_command_line_all(file: Path) -> None:
    file.write_text('state_dir = "/from/file"\nlisten = "127.0.0.1:1"\nmax_attempts = 7\n')
    environ = {"FINETUNED_CONFIG": str(file), "FINETUNED_LISTEN": "127.0.0.1:2"}
    chosen = load(environ=environ)
    assert (chosen.state_dir, chosen.listen, chosen.max_attempts) == (Path("/from/file"), "127.0.0.1:2", 7)
    assert load(environ=environ, listen="127.0.0.1:3").listen == "127.0.0.1:3"
    assert load(environ=environ, listen=None).listen == "127.0.0.1:2"
    assert load(file).listen == "127.0.0.1:1"


def test_the_environment_names_directory_socket_and_address() -> None:
    chosen = load(
        environ={"FINETUNED_STATE_DIR": "/s", "FINETUNED_SOCKET": "/run/f.sock", "FINETUNED_LISTEN": ""}
    )
    assert (chosen.state_dir, chosen.socket, chosen.address) == (Path("/s"), Path("/run/f.sock"), None)
    assert load(environ={"FINETUNED_STATE_DIR": "/s"}).socket == Path("/s/finetuned.sock")


def test_the_users_file_is_found_and_the_systems_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, own = tmp_path / "etc.toml", tmp_path / "finetuned" / "config.toml"
    monkeypatch.setattr(config_sources, "SYSTEM_FILE", system)
    own.parent.mkdir()
    own.write_text("max_attempts = 4\n")
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert load(environ=environ).max_attempts == 4
    system.write_text("max_attempts = 5\n")
    assert load(environ=environ).max_attempts == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('listen = ""\nmax_atempts = 3\n', [", line 2", "'max_atempts'", "'max_attempts'"]),
        ("zzz = 3\n", ["line 1", "'zzz'", "The keys are state_dir, socket"]),
        ("[sse]\nheartbeat_s = 3\n", ["line 1", "'sse'"]),
        ("max_attempts = 0\n", ["line 1", "max_attempts", "greater than or equal to 1", "got 0"]),
        ('max_attempts = "many"\n', ["line 1", "max_attempts", "got 'many'"]),
        ('\nlisten = "8642"\n', ["line 2", "host:port", "127.0.0.1:8642"]),
        ('listen = "host:99999"\n', ["line 1", "host:port"]),
        ('otel_endpoint = "collector:4318"\n', ["line 1", "otel_endpoint", "http://127.0.0.1:4318"]),
        ("otel_sample_ratio = 1.5\n", ["line 1", "otel_sample_ratio", "less than or equal to 1"]),
        ("max_attempts = \n", ["not TOML", "line 1"]),
    ],
)
def test_a_bad_file_is_refused_with_its_line_and_the_nearest_key(
    file: Path, text: str, said: list[str]
) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load(file)
    assert str(file) in refusal.value.message
    for words in said:
        assert words in refusal.value.message


def test_what_came_from_elsewhere_is_blamed_on_where_it_came_from(file: Path) -> None:
    file.write_text('listen = "127.0.0.1:1"\n')
    with pytest.raises(ConfigError, match=r"^FINETUNED_LISTEN: listen"):
        load(file, environ={"FINETUNED_LISTEN": "nowhere"})
    with pytest.raises(ConfigError, match=r"^The command line: listen"):
        load(file, listen="nowhere")


def test_a_socket_path_that_the_kernel_cannot_take_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"\d+ bytes long.*107.*FINETUNED_SOCKET"):
        load(environ={"FINETUNED_STATE_DIR": "/" + "x" * 100})
    longest = "/" + "x" * 106
    assert load(environ={"FINETUNED_SOCKET": longest}).socket == Path(longest)


def test_a_file_that_is_not_there_unreadable_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "x")


@pytest.mark.parametrize(
    ("listen", "address"),
    [("", None), ("[::1]:80", ("::1", 80)), ("gpu.example:0", ("gpu.example", 0)), ("0.0.0.0:8642", ("0.0.0.0", 8642))],
)  # fmt: skip
def test_addresses_are_read(listen: str, address: tuple[str, int] | None) -> None:
    assert config.split_address(listen) == address


@pytest.mark.parametrize("listen", [":80", "host", "host:", "::1:80", "a b:80", "host:65536", "[::1]"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        config.split_address(listen)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().listen = ""  # type: ignore[misc]  # that is the test


def test_the_reference_lists_exactly_the_keys_with_their_descriptions() -> None:
    rows = [line.split("|") for line in REFERENCE.read_text().splitlines() if line.startswith("| `")]
    listed = {row[1].strip().strip("`"): row[3].strip() for row in rows if row[1].strip().islower()}
    assert listed == {name: field.description for name, field in config.Config.model_fields.items()}
    for variable, key in config_sources.VARIABLES.items():
        assert f"`{variable}` (`{key}`)" in REFERENCE.read_text()
