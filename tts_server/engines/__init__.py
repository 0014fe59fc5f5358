"""Engines: what generates. One engine is one file."""
