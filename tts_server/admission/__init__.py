"""Who may ask, and whose call the engine gets next."""
