"""Decoding with a model of `transformers`, token by token."""
