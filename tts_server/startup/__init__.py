"""The start of a server: what it loads, for how long, and what it says of itself."""
