"""Reward models where they run: in this process, on vLLM, on a vLLM server, or the policy itself."""
