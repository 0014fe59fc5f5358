"""What `--prm` says: which reward models, of which families, from where."""

from dataclasses import dataclass
from pathlib import PurePath

from prm.families.detect import FAMILIES
from tts_server.config import ConfigError
from tts_server.prm_serving.plugins import plugins

BUILT_IN = ("judge", "generative", "fake", "none")
"""Those that need no model of their own."""
KINDS = ("auto", "generative", "lora", *FAMILIES)
"""What may stand before a model's name."""


@dataclass(frozen=True, slots=True)
class Source:
    """One reward model."""

    kind: str
    """One of `KINDS`; of `BUILT_IN`, or the name of a plug-in, where there is no model."""
    model: str = ""
    """A name of the catalog, a directory or a hub id; with `lora`, the adapter's directory."""

    @property
    def has_weights(self) -> bool:
        """Whether it is a model beside the policy's."""
        return bool(self.model) and self.kind != "lora"

    @property
    def name(self) -> str:
        """What requests call it."""
        return PurePath(self.model).name or self.model if self.model else self.kind


def parse(text: str) -> list[Source]:
    """The reward models of a comma-separated list, of which `none` is the empty one.

    Raises:
        ConfigError: one is none, or two have one name.
    """
    sources = [_source(part.strip()) for part in text.split(",")]
    if sources == [Source("none")]:
        return []
    if Source("none") in sources:
        raise ConfigError(f"prm: none stands alone, got {text!r}")
    names = [source.name for source in sources]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"prm: two reward models would be called {twice!r}")
    return sources


def _source(text: str) -> Source:
    if text in BUILT_IN or text in plugins():
        return Source(text)
    kind, colon, model = text.partition(":")
    if not colon:
        kind, model = "auto", kind
    if kind not in KINDS or not model:
        raise ConfigError(
            f"prm: {text!r} is no reward model; it is {', '.join([*BUILT_IN, *plugins()])}, or KIND:MODEL with a "
            f"directory, a hub id or a name of `tts-server models list`, where KIND is one of {', '.join(KINDS)}"
        )
    return Source(kind, model)
