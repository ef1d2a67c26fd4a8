"""What the daemon measures: the machine, its GPUs, its own process, and the processes of attempts.

telemetry       the sampler: one task, a look every few seconds in a thread, the newest look and the history kept
history         a bounded ring of figures, fine for an hour and by the minute for a day. Pure
host, gpus      one look at the machine (psutil) and at its GPUs (NVML)
processes       one look at all processes (/proc), and who belongs to whom. Pure but for that look
holders         who holds each GPU, and what each attempt uses. Pure
lag             how late the event loop is
requests        counts and latencies of HTTP requests
metrics         the table of what Prometheus is told; finetuned.telemetry.exposition fills it
testing         a fake of NVML

Everything is kept in memory and forgotten with the daemon: what must last is in the log.
Records are named tuples: frozen dataclasses with slots take a millisecond each to make, at every start.
"""

from __future__ import annotations
