"""From a strategy's events to the answer of an endpoint."""
