"""vLLM as an engine: its own serving of the OpenAI API, in an environment of its own."""
