"""The server under faults: an upstream that fails in every way, clients that vanish, disks that are full, clocks."""
