"""The demo: a small model, a small data set, and a daemon of its own that leaves nothing behind.

process     the ephemeral daemon as a child process
story       what the job's figures and answers say: pure
walk        the steps, from the import to the timeline
data        the rows and the recipe
"""

from __future__ import annotations
