"""Runs of a task against a running server."""
