"""The plugin that ``finetune plugins new`` writes: a small trainer that works, for its author to make his own."""
