"""What OpenAI's API says, mapped onto what the daemon does. Pure."""
