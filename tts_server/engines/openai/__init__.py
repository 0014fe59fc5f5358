"""The wire format of OpenAI-compatible upstreams."""
