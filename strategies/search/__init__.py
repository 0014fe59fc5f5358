"""The loops and trees that several search strategies share."""
