"""Fitting the policy table of `compute_optimal`."""
