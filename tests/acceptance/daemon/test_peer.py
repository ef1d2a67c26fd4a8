"""The real daemon process on its own event loop, uvloop: what its doors need of a transport is there."""

from __future__ import annotations

import os

from tests.acceptance.daemon.process import UnixConnection, running


def test_the_daemon_knows_who_connected_to_its_socket() -> None:
    with running() as daemon:
        job = daemon.job(daemon.submit(steps=0))
        assert job["submitted_by"] == f"uid:{os.getuid()}"
        assert daemon.request("GET", "/v1/tokens")[0] == 200


def test_a_stream_of_events_is_served_and_ends_with_the_daemon() -> None:
    with running() as daemon:
        job_id = daemon.submit(steps=1)
        daemon.wait_for(job_id)
        connection = UnixConnection(daemon.socket, timeout=20)
        connection.request("GET", f"/v1/jobs/{job_id}/events?stream=true&types=job.succeeded")
        response = connection.getresponse()
        while not response.readline().startswith(b"event: job.succeeded"):
            assert not response.isclosed()
        assert daemon.stop() == 0
        response.read()
        connection.close()
