"""Datasets that can be named: their content on disk, what is looked at in it, and how jobs refer to it."""
