"""Webhooks: events of the log sent to others, at least once, in order, signed as Standard Webhooks has it."""
