"""Our server beside others of its kind, on the same work: see `python -m bench.studies.peers --help`."""
