"""The benchmark harness: tasks and tables. Talks to a running server, or works on stored records."""
