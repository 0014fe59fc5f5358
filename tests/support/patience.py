"""How long a test waits for what must come: reaching it means that something hangs, however busy the machine is."""

NEVER_S = 600.0
