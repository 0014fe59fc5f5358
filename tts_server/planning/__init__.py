"""From a request to a task, a strategy and a budget."""
