"""The embedded engine: a model of transformers that answers many requests at once, in the environment of the daemon."""
