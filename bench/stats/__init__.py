"""Intervals, comparisons and estimates."""
