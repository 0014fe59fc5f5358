"""A small world of reasoning whose chances are known."""
