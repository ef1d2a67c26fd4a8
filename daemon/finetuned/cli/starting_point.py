"""``--from JOB``: the parameters by which a job begins with what an earlier one made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError, NotFoundError
from finetuned.wire import Job

Json = Any


async def of_job(daemon: Client, job_id: str, given: Mapping[str, Json]) -> dict[str, Json]:
    """``model`` of a whole model; of an adapter also ``adapter``, over the model that it was trained on.

    ``given`` are the parameters that were named beside it. Where they ask for every weight to be trained, an adapter is
    begun with merged. Raises ``InvalidRequestError`` for a job that has made no model (yet) or whose model is not
    registered (any more), and ``NotFoundError`` if there is none.
    """
    named = [f"--{name}" if name == "model" else name for name in ("model", "adapter") if name in given]
    if named:
        raise _refused(f"--from says where to begin, and so does {' and '.join(named)}; drop one of them")
    job = await daemon.job(job_id)
    name, adapter, merged = _made(job)
    if not adapter:
        return {"model": await _registered(daemon, name, job_id)}
    if given.get("method") != "full":
        return {"model": job["params"]["model"], "adapter": await _registered(daemon, name, job_id)}
    if merged:
        return {"model": await _registered(daemon, f"{name}-merged", job_id)}
    raise _refused(
        f"{job_id} made an adapter, and method=full trains whole models; use method=lora, or run {job_id} again with "
        "merge_adapter=true"
    )


def _made(job: Job) -> tuple[str, bool, bool]:
    """The name of what a job made, whether it is an adapter, and whether there is one merged into its base beside it."""
    result = job["result"] or {}
    name = result.get("model")
    if job["state"] != "succeeded":
        raise _refused(f"{job['id']} is {job['state']}; name a job that succeeded, or a model with --model")
    if not isinstance(name, str):
        raise _refused(f"{job['id']} has made no model; name a job that trained one, or a model with --model")
    return name, result.get("adapter_path") is not None, result.get("merged_path") is not None


async def _registered(daemon: Client, name: str, job_id: str) -> str:
    """The name, if it still means what the job made."""
    try:
        maker = (await daemon.model(name))["job"]
    except NotFoundError:
        raise _refused(
            f"{name}, which {job_id} made, is no longer registered; name a model with --model"
        ) from None
    if maker != job_id:
        raise _refused(
            f"{name} is by now what {maker or 'somebody'} made, not {job_id}; say --model {name} if you mean it"
        )
    return name


def _refused(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"{reason}.", param="from")
