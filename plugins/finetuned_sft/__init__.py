"""Supervised fine-tuning with TRL and peft, as a plugin.

``plugin`` is the declaration that the daemon imports; ``validation`` and ``trainer`` are the work, imported in
worker processes only. ``tokenization`` decides which tokens carry loss.
"""
