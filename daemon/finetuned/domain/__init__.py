"""The domain: what may happen to a job, as pure functions. No I/O, no clock, no random inside.

states      the states of a job and the one table of transitions
facts       every event the daemon records, as frozen dataclasses
job         a job as the fold of its events: ``evolve(job, fact) -> job``
world       all live jobs, devices, models and tokens: what the log's writer decides against
decisions   ``decide(world, command) -> [NewEvent]`` or ``Rejected``
queue       who is next, who waits for what
"""

from __future__ import annotations
