"""The demo: a small model, a small data set, and a daemon of its own that leaves nothing behind.

process     the ephemeral daemon as a child process
story       what a job's figures and answers say: pure
stages      the trainings, one after the other: supervised, then by preference
walk        the steps, from the import to the timeline
preferences the pairs, made from the rows: pure
data        the rows, the pairs and the recipe
"""

from __future__ import annotations
