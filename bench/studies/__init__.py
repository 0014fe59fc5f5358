"""Measurements of this server, one file each. They are no part of the wheel."""
