"""The disk of the state directory: whether there is room, what takes it, and what is removed to make some."""
