"""The record of one search."""
