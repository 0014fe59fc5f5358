"""Strategies: how to spend a budget on one task. Knows nothing of HTTP, vLLM or torch.

A strategy is one file of this package with one decorated async generator. Its keyword arguments are its options:
validation, `/v1/strategies` and the docs are derived from their annotations. The decorator adds the options that all
strategies have, `system_prompt` and `examples`, and applies them. Packages outside import `strategies.kit` and register
through the entry point group `tts_server.strategies`, whose modules are imported like the files here; one that fails to
import is left out with a line in the log.

The folders hold what strategies share. Each may use those before it: `core`, `answers`, `record`, `sampling`, `search`,
`allocation`.
"""

from strategies.core.registry import Entry, get, registry, strategy

__all__ = ["Entry", "get", "registry", "strategy"]
