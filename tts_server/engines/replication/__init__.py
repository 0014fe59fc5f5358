"""Several upstreams of one model."""
