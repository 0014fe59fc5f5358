"""Concurrent work of one request."""
