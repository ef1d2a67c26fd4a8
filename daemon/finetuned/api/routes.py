"""The one table of routes. OpenAPI and docs/reference/api.md are held to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiohttp.typedefs import Handler

from finetuned import wire
from finetuned.api import (
    aliases,
    artifacts,
    batches,
    datasets,
    devices,
    docs,
    drain,
    events,
    files,
    fine_tuning,
    health,
    inference,
    jobs,
    kinds,
    lineage,
    log_routes,
    metrics,
    models,
    output,
    prometheus,
    secrets,
    system,
    templates,
    tokens,
    uploads,
    webhooks,
    workers,
)
from finetuned.api.auth import Scope
from finetuned.api.call import Route


@dataclass(frozen=True, slots=True)
class OpenRoute:
    """An operation that needs no credentials. With ``any_host`` the Host header may be what it likes."""

    method: str
    path: str
    handler: Handler
    summary: str
    answer: Any = None  # the shape of its JSON; none for what is no JSON
    any_host: bool = False


A_DATASET = "{name:(?!register$)[^/]+}"  # what stands beside the datasets is none of them
READ, OPERATE, ADMIN = Scope.READ, Scope.OPERATE, Scope.ADMIN

# fmt: off
ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/jobs", jobs.submit, OPERATE, "Submit a job, or tell what would come of it", status=201, also=(200,)),
    Route("GET", "/v1/jobs", jobs.listed, READ, "List jobs, newest first"),
    Route("GET", "/v1/jobs/{job_id}", jobs.show, READ, "Show a job"),
    Route("DELETE", "/v1/jobs/{job_id}", jobs.delete, OPERATE, "Hide an ended job and remove its files"),
    Route("POST", "/v1/jobs/{job_id}/cancel", jobs.cancel, OPERATE, "Ask a job to end"),
    Route("POST", "/v1/jobs/{job_id}/pause", jobs.pause, OPERATE, "Ask a job to save a checkpoint and leave its devices"),
    Route("POST", "/v1/jobs/{job_id}/resume", jobs.resume, OPERATE, "Let a paused job go on"),
    Route("POST", "/v1/jobs/{job_id}/checkpoint", jobs.checkpoint, OPERATE, "Ask a running job for a checkpoint at its next step"),
    Route("POST", "/v1/jobs/{job_id}/retry", jobs.retry, OPERATE, "Submit an ended job again as a new one", status=201),
    Route("GET", "/v1/jobs/{job_id}/events", events.of_job, READ, "A job's events, as a page or a stream", media="text/event-stream"),
    Route("GET", "/v1/jobs/{job_id}/logs", output.show, READ, "What a job's processes printed", media="text/plain"),
    Route("GET", "/v1/jobs/{job_id}/logs/search", output.search, READ, "Search what a job's processes printed"),
    Route("GET", "/v1/jobs/{job_id}/logs/counts", output.counts, READ, "Count its lines, errors and warnings"),
    Route("GET", "/v1/jobs/{job_id}/metrics", metrics.show, READ, "A job's curves, thinned out without hiding a spike"),
    Route("GET", "/v1/jobs/{job_id}/checkpoints", artifacts.checkpoints, READ, "List a job's checkpoints"),
    Route("GET", "/v1/jobs/{job_id}/artifacts", artifacts.listed, READ, "List a job's artifacts"),
    Route("GET", "/v1/jobs/{job_id}/artifacts/{name}", artifacts.show, READ, "Show an artifact with its files"),
    Route("GET", "/v1/jobs/{job_id}/artifacts/{name}/files/{path:.+}", artifacts.file, READ, "Download a file of an artifact, or a range of it", media="application/octet-stream", head=True),
    Route("GET", "/v1/jobs/{job_id}/artifacts/{name}/archive", artifacts.archive, READ, "Download an artifact as a zip archive, or a range of it", media="application/zip", head=True),
    Route("GET", "/v1/jobs/{job_id}/next", lineage.next_of_job, READ, "What makes sense next for a job"),
    Route("GET", "/v1/events", events.of_all, READ, "All events, as a page or a stream", media="text/event-stream"),
    Route("GET", "/v1/kinds", kinds.listed, READ, "List job kinds with their parameters' schemas"),
    Route("GET", "/v1/kinds/{name}", kinds.show, READ, "Show a job kind"),
    Route("GET", "/v1/models", models.listed, READ, "List models by all their names"),
    Route("GET", "/v1/models/{name}/lineage", lineage.of_model, READ, "What a model was made from, and what from it"),
    Route("GET", "/v1/models/{name:.+}", models.show, READ, "Show a model"),
    Route("DELETE", "/v1/models/{name:.+}", models.delete, OPERATE, "Free a model's name; its files stay"),
    Route("GET", "/v1/aliases", aliases.listed, READ, "List aliases of models"),
    Route("GET", "/v1/aliases/{alias}", aliases.show, READ, "Show what an alias stands for"),
    Route("PUT", "/v1/aliases/{alias}", aliases.promote, OPERATE, "Have an alias stand for a model"),
    Route("DELETE", "/v1/aliases/{alias}", aliases.delete, OPERATE, "Free an alias; its model stays"),
    Route("POST", "/v1/aliases/{alias}/rollback", aliases.roll_back, OPERATE, "Have an alias stand for the model before"),
    Route("POST", "/v1/fine_tuning/jobs", fine_tuning.create, OPERATE, "Submit a fine-tuning job, as OpenAI's clients do"),
    Route("GET", "/v1/fine_tuning/jobs", fine_tuning.listed, READ, "List fine-tuning jobs, newest first"),
    Route("GET", "/v1/fine_tuning/jobs/{fine_tuning_job_id}", fine_tuning.show, READ, "Show a fine-tuning job"),
    Route("POST", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel", fine_tuning.cancel, OPERATE, "Ask a fine-tuning job to end"),
    Route("POST", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/pause", fine_tuning.pause, OPERATE, "Ask a fine-tuning job to save a checkpoint and leave its devices"),
    Route("POST", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/resume", fine_tuning.resume, OPERATE, "Let a paused fine-tuning job go on"),
    Route("GET", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/events", fine_tuning.events, READ, "What happened to a fine-tuning job, newest first", media="text/event-stream"),
    Route("GET", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints", fine_tuning.checkpoints, READ, "List a fine-tuning job's checkpoints, newest first"),
    Route("POST", "/v1/datasets", datasets.upload, OPERATE, "Upload a dataset", status=201, also=(200,), raw="application/octet-stream"),
    Route("POST", "/v1/datasets/register", datasets.register, OPERATE, "Name a file that stays on the server", status=201, also=(200,)),
    Route("GET", "/v1/datasets", datasets.listed, READ, "List datasets"),
    Route("GET", f"/v1/datasets/{A_DATASET}", datasets.show, READ, "Show a dataset and its versions"),
    Route("DELETE", f"/v1/datasets/{A_DATASET}", datasets.delete, OPERATE, "Free a dataset's name, or one version of it"),
    Route("GET", "/v1/datasets/{name}/preview", datasets.preview, READ, "Show some rows of a dataset"),
    Route("GET", "/v1/datasets/{name}/content", datasets.content, READ, "Download a dataset's file, or a range of it", media="application/octet-stream", head=True),
    Route("GET", "/v1/datasets/{name}/audits", datasets.audits, READ, "List what jobs found in a dataset"),
    Route("POST", "/v1/datasets/{name}/audit", datasets.audit, OPERATE, "Submit a job that audits a dataset", status=201),
    Route("POST", "/v1/files", files.upload, OPERATE, "Upload a file", raw=files.UploadForm),
    Route("GET", "/v1/files", files.listed, READ, "List files, newest first"),
    Route("GET", "/v1/files/{file_id}", files.show, READ, "Show a file"),
    Route("DELETE", "/v1/files/{file_id}", files.delete, OPERATE, "Delete a file"),
    Route("GET", "/v1/files/{file_id}/content", files.content, READ, "Download a file, or a range of it", media="application/octet-stream", head=True),
    Route("POST", "/v1/uploads", uploads.create, OPERATE, "Begin an upload in parts", keyed=False),
    Route("POST", "/v1/uploads/{upload_id}/parts", uploads.add_part, OPERATE, "Send a part of an upload", raw=uploads.PartForm, keyed=False),
    Route("POST", "/v1/uploads/{upload_id}/complete", uploads.complete, OPERATE, "Make a file of an upload's parts", keyed=False),
    Route("POST", "/v1/uploads/{upload_id}/cancel", uploads.cancel, OPERATE, "Give an upload up", keyed=False),
    Route("POST", "/v1/batches", batches.create, OPERATE, "Ask a model all requests of a file"),
    Route("GET", "/v1/batches", batches.listed, READ, "List batches, newest first"),
    Route("GET", "/v1/batches/{batch_id}", batches.show, READ, "Show a batch"),
    Route("POST", "/v1/batches/{batch_id}/cancel", batches.cancel, OPERATE, "Ask a batch to end; what it has finished is kept"),
    Route("GET", "/v1/templates", templates.listed, READ, "List templates"),
    Route("POST", "/v1/templates", templates.create, OPERATE, "Keep a job request under a new name", status=201),
    Route("GET", "/v1/templates/{name}", templates.show, READ, "Show a template"),
    Route("PUT", "/v1/templates/{name}", templates.save, OPERATE, "Save the next version of a template"),
    Route("DELETE", "/v1/templates/{name}", templates.delete, OPERATE, "Free a template's name"),
    Route("GET", "/v1/templates/{name}/versions", templates.versions, READ, "List a template's versions"),
    Route("POST", "/v1/chat/completions", inference.chat, OPERATE, "The next message of a conversation", media="text/event-stream", keyed=False),
    Route("POST", "/v1/completions", inference.complete, OPERATE, "What follows a prompt", media="text/event-stream", keyed=False),
    Route("POST", "/v1/embeddings", inference.embed, OPERATE, "Vectors of texts, where an engine makes them", keyed=False),
    Route("GET", "/v1/devices", devices.listed, READ, "List devices and who holds them"),
    Route("GET", "/v1/workers", workers.listed, READ, "List live attempts and what their processes use"),
    Route("POST", "/v1/workers/clear-gpu", workers.clear_gpu, OPERATE, "End idle engines, and show that their memory is back", keyed=False),
    Route("POST", "/v1/workers/{job_id}/restart", workers.restart, OPERATE, "Have a worker leave, and come again"),
    Route("POST", "/v1/workers/{job_id}/kill", workers.kill, OPERATE, "Kill a worker's processes at once"),
    Route("GET", "/v1/system", system.show, READ, "Show the machine, who holds its GPUs, and the daemon"),
    Route("GET", "/v1/system/history", system.history, READ, "Show the machine over the last hour or day"),
    Route("GET", "/v1/drain", drain.show, READ, "Whether the daemon drains, and what it waits for"),
    Route("POST", "/v1/drain", drain.begin, ADMIN, "Start nothing new, and stop when nothing runs any more"),
    Route("DELETE", "/v1/drain", drain.take_back, ADMIN, "Take a drain back"),
    Route("GET", "/metrics", prometheus.metrics, READ, "Metrics for Prometheus", media="text/plain"),
    Route("GET", "/v1/tokens", tokens.listed, ADMIN, "List tokens, without their secrets"),
    Route("POST", "/v1/tokens", tokens.create, ADMIN, "Make a token; its secret is shown once", status=201),
    Route("DELETE", "/v1/tokens/{token_id}", tokens.revoke, ADMIN, "Revoke a token"),
    Route("GET", "/v1/secrets", secrets.listed, ADMIN, "List secrets by name"),
    Route("PUT", "/v1/secrets/{name}", secrets.put, ADMIN, "Store a secret, or replace it"),
    Route("DELETE", "/v1/secrets/{name}", secrets.delete, ADMIN, "Remove a secret"),
    Route("GET", "/v1/webhooks", webhooks.listed, ADMIN, "List webhooks, without their secrets"),
    Route("POST", "/v1/webhooks", webhooks.create, ADMIN, "Send events to an address; the secret is shown once", status=201),
    Route("GET", "/v1/webhooks/{webhook_id}", webhooks.show, ADMIN, "Show a webhook and how far its deliveries have come"),
    Route("DELETE", "/v1/webhooks/{webhook_id}", webhooks.delete, ADMIN, "End a webhook"),
    Route("POST", "/v1/webhooks/{webhook_id}/enable", webhooks.enable, ADMIN, "Send again after it was disabled"),
    Route("POST", "/v1/webhooks/{webhook_id}/rotate", webhooks.rotate, ADMIN, "Make another secret; it is shown once"),
    Route("POST", "/v1/webhooks/{webhook_id}/test", webhooks.test, ADMIN, "Send a test now, and tell what came of it", keyed=False),
    Route("POST", "/v1/webhooks/{webhook_id}/replay", webhooks.replay, ADMIN, "Send again what follows a position or a time"),
    Route("GET", "/v1/log", log_routes.statistics, READ, "Figures about the event log"),
    Route("POST", "/v1/log/verify", log_routes.verify, ADMIN, "Check the event log"),
    Route("POST", "/v1/log/rebuild", log_routes.rebuild, ADMIN, "Replay the event log, replace what differs"),
    Route("POST", "/v1/log/archive", log_routes.archive, ADMIN, "Move the beginning of the event log into a file", status=201),
    Route("POST", "/v1/log/backup", log_routes.backup, ADMIN, "Write a checked copy of the event log", status=201),
)
# fmt: on

OPEN_ROUTES: tuple[OpenRoute, ...] = (
    OpenRoute("GET", "/healthz", health.alive, "Whether the process answers", wire.Alive, any_host=True),
    OpenRoute(
        "GET",
        "/readyz",
        health.ready,
        "Whether the daemon has recovered and can be used",
        wire.Ready,
        any_host=True,  # probes ask an address, by whatever name
    ),
    OpenRoute("GET", "/openapi.json", docs.description, "This API as OpenAPI 3.1", dict[str, Any]),
    OpenRoute("GET", "/docs", docs.page, "This API for people, offline"),
)
