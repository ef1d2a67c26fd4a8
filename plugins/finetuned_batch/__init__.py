"""Batch inference as a job: the requests of a file, asked of an engine, each answered exactly once."""
