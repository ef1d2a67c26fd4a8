from __future__ import annotations

import re
from pathlib import Path

from finetuned.config import Config
from finetuned.telemetry.metrics import METRICS
from finetuned.tracing.jobs import context

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "monitor.md"
SUFFIX = r"_(bucket|count|sum)$"


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_alerts_and_queries_name_metrics_and_labels_that_there_are() -> None:
    known = {each.name: set(each.labels) for each in METRICS}
    expressions = [
        each for block in blocks("yaml") for each in re.findall(r"^ +expr: (.+)$", block, re.MULTILINE)
    ]
    expressions += blocks("promql")
    assert len(expressions) > 10
    for expression in expressions:
        named = re.findall(r"\b((?:finetuned|process)_\w+)(?:\{([^}]*)\})?", expression)
        assert named or expression.startswith("up"), expression
        for name, labels in named:
            metric = name if name in known else re.sub(SUFFIX, "", name)
            assert metric in known, name
            given = set(re.findall(r"(\w+)\s*[=!]", labels)) - {"job"}  # the scrape's own label, beside ours
            assert given <= known[metric], expression


def test_metrics_in_the_text_are_there() -> None:
    known = {each.name for each in METRICS}
    assert set(re.findall(r"`(finetuned_\w+)`", GUIDE.read_text(encoding="utf-8"))) <= known


def test_the_settings_in_it_are_taken() -> None:
    import tomllib

    (settings,) = (tomllib.loads(block) for block in blocks("toml"))
    assert Config(**settings).otel_endpoint == "http://127.0.0.1:4318"


def test_a_jobs_trace_id_is_what_the_guide_says() -> None:
    import hashlib

    assert context("job-1").trace_id.to_bytes(16) == hashlib.sha256(b"trace/job-1").digest()[:16]
