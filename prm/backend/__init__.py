"""Reward models of every family in this process; the reference of the other backends."""
