"""Who asks the real daemon process, on its own event loop."""

from __future__ import annotations

import os

from tests.acceptance.daemon.process import running


def test_the_daemon_knows_who_connected_to_its_socket() -> None:
    with running() as daemon:
        job = daemon.job(daemon.submit(steps=0))
        assert job["submitted_by"] == f"uid:{os.getuid()}"
        assert daemon.request("GET", "/v1/tokens")[0] == 200
