"""HTTP to an OpenAI-compatible upstream."""
