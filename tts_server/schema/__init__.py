"""The requests of the HTTP API: the only place where their shape is checked."""
