"""Reward models of trained families where they run: on vLLM in this process, on a vLLM server, beside the policy."""
