"""What the server counts, and how `/metrics` tells it."""
