"""Templates: kept, versioned, and what a job is made from."""

from __future__ import annotations

from typing import Any

import pytest

SMALL = {"kind": "fake", "params": {"steps": 3}, "priority": 5, "metadata": {"team": "a", "cost": 1}}


async def answer(client: Any, method: str, path: str, status: int, body: Any = None, **headers: str) -> Any:
    async with client.request(method, path, json=body, headers=headers) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def saved(client: Any, name: str = "small", request: Any = None, **more: Any) -> Any:
    return await answer(client, "PUT", f"/v1/templates/{name}", 200, {"request": request or SMALL, **more})


async def refusal(client: Any, method: str, path: str, status: int, code: str, body: Any = None) -> Any:
    error = (await answer(client, method, path, status, body))["error"]
    assert error["code"] == code, error
    return error


async def test_a_template_is_kept_shown_and_listed(client: Any) -> None:
    body = {"name": "small", "request": SMALL, "description": "a quick look"}
    made = await answer(client, "POST", "/v1/templates", 201, body)
    saved_at = made.pop("saved_at")
    assert saved_at.endswith("Z")
    assert made.pop("saved_by").startswith("uid:")
    assert made == {
        "id": "small",
        "object": "template",
        "name": "small",
        "version": 1,
        "description": "a quick look",
        "request": SMALL,
    }
    shown = await answer(client, "GET", "/v1/templates/small", 200)
    assert (await answer(client, "GET", "/v1/templates", 200))["data"] == [shown]
    assert shown["saved_at"] == saved_at


async def test_only_what_was_said_is_kept(client: Any) -> None:
    assert (await saved(client, request={"kind": "fake"}))["request"] == {"kind": "fake"}


async def test_each_save_that_changes_something_is_a_version_that_stays(client: Any) -> None:
    await saved(client)
    assert (await saved(client))["version"] == 1  # the same again
    assert (await saved(client, request={"kind": "fake", "params": {"steps": 9}}))["version"] == 2
    assert (await saved(client, request={"kind": "fake", "params": {"steps": 9}}, description="x"))[
        "version"
    ] == 3
    listed = (await answer(client, "GET", "/v1/templates/small/versions", 200))["data"]
    assert [each["version"] for each in listed] == [3, 2, 1]
    first = await answer(client, "GET", "/v1/templates/small?version=1", 200)
    assert first["request"] == SMALL
    error = await refusal(client, "GET", "/v1/templates/small?version=7", 404, "not_found")
    assert "its newest is 3" in error["message"]


async def test_the_versions_of_a_name_that_is_freed_count_on(house: Any, client: Any) -> None:
    await saved(client)
    deleted = await answer(client, "DELETE", "/v1/templates/small", 200)
    assert deleted == {"id": "small", "object": "template", "deleted": True}
    await refusal(client, "GET", "/v1/templates/small", 404, "not_found")
    await refusal(client, "DELETE", "/v1/templates/small", 404, "not_found")
    assert (await saved(client, request={"kind": "fake"}))["version"] == 2
    listed = (await answer(client, "GET", "/v1/templates/small/versions", 200))["data"]
    assert [each["request"] for each in listed] == [{"kind": "fake"}]
    await refusal(client, "GET", "/v1/templates/small?version=1", 404, "not_found")
    assert (await house.commands.rebuild_log()).equal


async def test_the_versions_of_a_name_count_on_over_a_restart(open_house: Any, open_client: Any) -> None:
    async with open_house() as house, open_client(house) as client:
        await saved(client)
        await answer(client, "DELETE", "/v1/templates/small", 200)
    async with open_house() as house, open_client(house) as client:
        assert (await saved(client))["version"] == 2


async def test_versions_come_in_pages(client: Any) -> None:
    for steps in range(1, 6):
        await saved(client, request={"kind": "fake", "params": {"steps": steps}})
    seen: list[int] = []
    path, more = "/v1/templates/small/versions?limit=2", ""
    while True:
        page = await answer(client, "GET", path + more, 200)
        seen += [each["version"] for each in page["data"]]
        if not page["has_more"]:
            break
        more = f"&after={page['next_after']}"
    assert seen == [5, 4, 3, 2, 1]
    page = await answer(client, "GET", "/v1/templates/small/versions?after=3", 200)
    assert [each["version"] for each in page["data"]] == [2, 1]


async def test_templates_come_in_pages_by_name(client: Any) -> None:
    for name in ("c", "a", "b"):
        await saved(client, name)
    first = await answer(client, "GET", "/v1/templates?limit=2", 200)
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (["a", "b"], True)
    second = await answer(client, "GET", f"/v1/templates?limit=2&after={first['next_after']}", 200)
    assert ([each["id"] for each in second["data"]], second["has_more"]) == (["c"], False)


async def test_a_taken_name_is_refused_to_who_wants_a_new_one(client: Any) -> None:
    await saved(client)
    body = {"name": "small", "request": {"kind": "fake"}}
    error = await refusal(client, "POST", "/v1/templates", 409, "template_exists", body)
    assert "PUT /v1/templates/small" in error["message"]


async def test_a_repeated_creation_is_carried_out_once(client: Any) -> None:
    body = {"name": "small", "request": SMALL}
    key = {"Idempotency-Key": "k1"}
    first = await answer(client, "POST", "/v1/templates", 201, body, **key)
    assert await answer(client, "POST", "/v1/templates", 201, body, **key) == first


@pytest.mark.parametrize(
    ("request_", "code", "param", "hint"),
    [
        ({"kind": "fak"}, "unknown_kind", "request.kind", "Did you mean 'fake'"),
        ({}, "unknown_kind", "request.kind", "finetune kinds"),
        ({"kind": "fake", "params": {"stepz": 1}}, "unknown_parameter", "request.params.stepz", "steps"),
        ({"kind": "fake", "params": {"steps": 0}}, "invalid_params", "request.params.steps", "greater than"),
        ({"kind": "fake", "template": "other"}, "invalid_request", "request.template", "write out"),
        (
            {"kind": "fake", "metadata": {"api_key": "x1y2z3"}},
            "secret_in_params",
            "request.metadata.api_key",
            "finetune secrets set",
        ),
    ],
)
async def test_what_no_job_could_be_made_from_is_refused(
    client: Any, request_: Any, code: str, param: str, hint: str
) -> None:
    error = await refusal(client, "PUT", "/v1/templates/small", 400, code, {"request": request_})
    assert error["param"] == param
    assert hint in error["message"]


@pytest.mark.parametrize("name", ["-x", "a b", "x" * 97, "ä"])
async def test_a_name_that_is_none_is_refused(client: Any, name: str) -> None:
    error = await refusal(
        client, "POST", "/v1/templates", 400, "invalid_request", {"name": name, "request": SMALL}
    )
    assert (error["param"], "letters, digits" in error["message"]) == ("name", True)


async def test_a_job_is_made_from_a_template_and_says_so(client: Any) -> None:
    await saved(client)
    job = await answer(client, "POST", "/v1/jobs", 201, {"template": "small"})
    assert (job["template"], job["kind"], job["params"]) == ("small@1", "fake", {"steps": 3})
    assert (job["priority"], job["metadata"]) == (5, {"team": "a", "cost": 1})


async def test_what_a_request_says_itself_counts(client: Any) -> None:
    await saved(client)
    body = {
        "template": "small",
        "params": {"steps": 7},
        "priority": 0,
        "metadata": {"team": "b"},
        "name": "mine",
    }
    job = await answer(client, "POST", "/v1/jobs", 201, body)
    assert (job["params"], job["priority"], job["name"]) == ({"steps": 7}, 0, "mine")
    assert job["metadata"] == {"team": "b", "cost": 1}


async def test_a_job_can_be_made_from_an_earlier_version(client: Any) -> None:
    await saved(client)
    await saved(client, request={"kind": "fake", "params": {"steps": 9}})
    newest = await answer(client, "POST", "/v1/jobs", 201, {"template": "small"})
    earlier = await answer(client, "POST", "/v1/jobs", 201, {"template": "small@1"})
    assert [(job["template"], job["params"]) for job in (newest, earlier)] == [
        ("small@2", {"steps": 9}),
        ("small@1", {"steps": 3}),
    ]


@pytest.mark.parametrize(
    ("body", "status", "code", "param", "hint"),
    [
        ({"template": "large"}, 404, "not_found", "template", "there is small"),
        ({"template": "small@9"}, 404, "not_found", "version", "its newest is 1"),
        ({"template": "small@x"}, 400, "invalid_request", "template", "small@1"),
        ({"template": "small", "kind": "sft"}, 400, "invalid_request", "kind", "leave kind out"),
        (
            {"template": "small", "params": {"steps": 0}},
            400,
            "invalid_params",
            "params.steps",
            "greater than",
        ),
        ({"params": {}}, 400, "missing_parameter", "kind", "give it a value"),
    ],
)
async def test_a_job_that_no_template_completes_is_refused(
    client: Any, body: Any, status: int, code: str, param: str, hint: str
) -> None:
    await saved(client)
    error = await refusal(client, "POST", "/v1/jobs", status, code, body)
    assert error["param"] == param
    assert hint in error["message"]


async def test_a_retried_job_still_says_what_it_was_made_from(house: Any, client: Any) -> None:
    await saved(client)
    job = await answer(client, "POST", "/v1/jobs", 201, {"template": "small"})
    await answer(client, "POST", f"/v1/jobs/{job['id']}/cancel", 200, {})
    again = await answer(client, "POST", f"/v1/jobs/{job['id']}/retry", 201, {})
    assert (again["template"], again["params"]) == ("small@1", {"steps": 3})
