"""The records of searches: how one is gathered, written down, kept and shown again."""
