"""Records of runs on the disk."""
