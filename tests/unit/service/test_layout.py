from __future__ import annotations

from pathlib import Path

from finetuned.service.layout import Layout, Scope, find_layout


def test_root_means_the_system_and_everybody_else_their_own() -> None:
    assert find_layout(uid=0).scope is Scope.SYSTEM
    assert find_layout(uid=1000, environ={"HOME": "/home/ann"}).scope is Scope.USER


def test_the_systems_service_is_where_the_units_say(system: Layout) -> None:
    assert system.current == Path("/opt/finetuned/current")
    assert system.units == Path("/etc/systemd/system")
    assert system.socket == Path("/run/finetuned/finetuned.sock")
    assert system.state == Path("/var/lib/finetuned")


def test_a_users_service_is_in_their_home(own: Layout) -> None:
    assert own.current == Path("/home/ann/.local/share/finetuned/current")
    assert own.units == Path("/home/ann/.config/systemd/user")
    assert own.socket == Path("/home/ann/.local/state/finetuned/finetuned.sock")
    assert own.command == Path("/home/ann/.local/bin/finetune")


def test_everything_of_an_image_is_below_its_root(image: Layout, tmp_path: Path) -> None:
    paths = [
        image.base,
        image.command,
        image.units,
        image.sysusers,
        image.tmpfiles,
        image.secrets,
        image.state,
    ]
    assert all(path.is_relative_to(tmp_path) for path in [*paths, image.socket])
    assert not image.is_running_system
