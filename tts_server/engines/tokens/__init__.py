"""Chat messages and texts as token ids."""
