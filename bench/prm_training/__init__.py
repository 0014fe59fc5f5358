"""Labels for reward models, and their training."""
