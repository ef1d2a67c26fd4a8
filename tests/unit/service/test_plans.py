from __future__ import annotations

import json
from pathlib import Path

from finetuned.service import plans, units
from finetuned.service.layout import Layout
from finetuned.service.plans import Candidate
from finetuned.service.sources import Source
from finetuned.service.steps import Plan, Write

SOURCE = Source("finetuned==1.0", "1.0", "abc")


def candidate(layout: Layout) -> Candidate:
    return Candidate(layout.releases / "1.0", SOURCE, Path("/usr/bin/python3"))


def shipped(layout: Layout) -> tuple[tuple[Path, str], ...]:
    return tuple(units.files(layout, units.shipped()))


def texts(plan: Plan) -> list[str]:
    return [step.text for step in plan]


def position(plan: Plan, beginning: str) -> int:
    found = [index for index, text in enumerate(texts(plan)) if text.startswith(beginning)]
    assert len(found) == 1, (beginning, texts(plan))
    return found[0]


def test_the_systems_plan_makes_the_account_before_anything_needs_it(system: Layout) -> None:
    plan = plans.install(system, candidate(system), shipped(system))
    order = [
        position(plan, each)
        for each in (
            "write /etc/systemd/system/finetuned.service",
            "write /etc/sysusers.d/finetuned.conf",
            "run systemctl daemon-reload",
            "run systemd-sysusers /etc/sysusers.d/finetuned.conf",
            "run systemd-tmpfiles --create /etc/tmpfiles.d/finetuned.conf",
            "install finetuned==1.0 into /opt/finetuned/releases/1.0",
            "run /opt/finetuned/releases/1.0/bin/finetuned --check as finetuned",
            "link /opt/finetuned/current -> /opt/finetuned/releases/1.0",
            "link /usr/local/bin/finetune -> /opt/finetuned/current/bin/finetune",
            "run systemctl enable finetuned.socket finetuned-gpu.service finetuned.service",
            "run systemctl start finetuned.socket finetuned-gpu.service finetuned.service",
            "wait until finetuned 1.0 answers at /run/finetuned/finetuned.sock",
        )
    ]
    assert order == sorted(order)


def test_a_users_plan_touches_nothing_outside_their_home(own: Layout) -> None:
    plan = plans.install(own, candidate(own), shipped(own))
    written = [step.path for step in plan if isinstance(step, Write)]
    assert written[0] == Path("/home/ann/.config/systemd/user/finetuned.service")
    assert all(path.is_relative_to("/home/ann") for path in written)
    commands = [text for text in texts(plan) if text.startswith("run ")]
    assert all(
        text.startswith(("run systemctl --user ", "run /home/ann/", "run loginctl ")) for text in commands
    )


def test_the_plan_for_an_image_runs_nothing_of_the_system(image: Layout) -> None:
    plan = plans.install(image, candidate(image), shipped(image))
    assert not [text for text in texts(plan) if text.startswith(("run ", "wait "))]


def test_what_is_removed_is_what_was_installed(system: Layout) -> None:
    install = plans.install(system, candidate(system), shipped(system))
    (receipt,) = [step for step in install if isinstance(step, Write) and step.path == system.receipt]
    noted = json.loads(receipt.content)
    installed = [Path(each) for each in (*noted["files"], *noted["links"])]
    plan = texts(plans.uninstall(system, installed, purge=False))
    made = [step.path for step in install if isinstance(step, Write)]
    for path in (*made, system.current, system.command):
        assert f"remove {path}" in plan
    assert not [
        text for text in plan if "/var/lib/finetuned" in text or text.startswith("remove /etc/finetuned")
    ]
    stop = plan[0]
    assert stop.startswith("run systemctl disable --now ")
    assert "finetuned-tcp.socket" in stop  # it may have been enabled since


def test_purging_removes_the_log_and_the_account_as_well(system: Layout, own: Layout) -> None:
    plan = texts(plans.uninstall(system, [], purge=True))
    assert "remove /var/lib/finetuned: the log, all jobs and all models" in plan
    assert "remove /etc/finetuned: the configuration and the secrets" in plan
    assert "run userdel finetuned: remove the account" in plan
    users = texts(plans.uninstall(own, [], purge=True))
    assert "remove /home/ann/.local/state/finetuned: the log, all jobs and all models" in users
    assert not [text for text in users if "userdel" in text or "/etc/" in text]


def test_an_upgrade_checks_the_release_before_anything_points_to_it(system: Layout) -> None:
    new = candidate(system)
    plan = (*plans.prepare(system, new), *plans.switch(system, new.path, "1.0"))
    order = [
        position(plan, each)
        for each in (
            "install finetuned==1.0",
            "run /opt/finetuned/releases/1.0/bin/finetuned --check as finetuned",
            "run /opt/finetuned/releases/1.0/bin/finetune install-service --system --units-only --yes",
            "link /opt/finetuned/current",
            "run systemctl restart finetuned.service",
            "wait until finetuned 1.0 answers",
        )
    ]
    assert order == list(range(len(plan)))


def test_every_shipped_unit_is_installed(system: Layout, own: Layout) -> None:
    root = Path(__file__).parents[3] / "systemd"
    names = {path.name for path in root.rglob("*") if path.is_file()}
    assert {path.name for layout in (system, own) for path, _ in shipped(layout)} == names


def test_the_unit_starts_what_the_link_points_to(system: Layout, own: Layout) -> None:
    for layout, start in ((system, "/opt/finetuned/current"), (own, "%h/.local/share/finetuned/current")):
        content = dict(shipped(layout))[layout.units / "finetuned.service"]
        assert f"ExecStart={start}/bin/finetuned\n" in content
        assert str(layout.current) == start.replace("%h", str(layout.home))
    content = dict(shipped(system))[system.units / "finetuned.service"]
    assert f"FINETUNED_STATE_DIR={system.state}" in content
    assert f"FINETUNED_SOCKET={system.socket}" in content
    assert f"LoadCredential=secret:{system.secrets}\n" in content
