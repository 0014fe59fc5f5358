"""Answers in a form that the request fixes: JSON by a schema, and calls of tools."""
