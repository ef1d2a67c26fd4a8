"""``--from JOB``: the parameters by which a job begins with what an earlier one made."""

from __future__ import annotations

from typing import Any

from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError

Json = Any


async def of_job(daemon: Client, job_id: str) -> dict[str, Json]:
    """``model`` of a whole model; of an adapter also ``adapter``, over the model that it was trained on.

    Raises ``InvalidRequestError`` for a job that has made no model (yet), ``NotFoundError`` if there is none.
    """
    job = await daemon.job(job_id)
    result = job["result"] or {}
    name = result.get("model")
    if not isinstance(name, str):
        state = (
            "has made no model" if job["state"] == "succeeded" else f"is {job['state']} and has no model yet"
        )
        raise InvalidRequestError(
            f"{job_id} {state}; name a job that trained one, or a model with --model.", param="from"
        )
    if result.get("adapter_path") is None:
        return {"model": name}
    return {"model": job["params"]["model"], "adapter": name}
