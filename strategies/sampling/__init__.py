"""How whole solutions are drawn from the engine."""
