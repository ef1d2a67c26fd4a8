"""Direct preference optimisation of language models, with TRL's trainer."""
