"""What selectors reach on stored samples."""
