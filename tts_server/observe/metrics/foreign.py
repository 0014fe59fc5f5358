"""Metrics that others tell: libraries in this process, vLLM among them, and upstreams, each under its own name.

An upstream is asked while somebody looks, for `TIMEOUT_S` and no longer, at most once in `KEPT_S` however many look.
Its lines are read as data: what is no sample is left out, and so is what this server tells itself.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import REGISTRY, generate_latest

from tts_server.errors import APIError
from tts_server.observe.metrics.counts import Plain
from tts_server.upstream.errors import NoSuchPath

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
KEPT_S = 1.0
MAX_BYTES = 4 * 2**20

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_TYPES = "counter|gauge|histogram|summary|untyped"
_ABOUT = re.compile(rf"# (?:(HELP) ({_NAME})(?: .*)?|(TYPE) ({_NAME}) (?:{_TYPES}))")
_LABELS = r'(?:[a-zA-Z_]\w*="(?:[^"\\]|\\.)*",?)*'
_VALUE = r" (?:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?Inf|NaN)(?: -?\d+)?"
_SAMPLE = re.compile(rf"({_NAME})(?:\{{({_LABELS})\}})?({_VALUE})")
_TAKEN = re.compile(r'(?:^|,)upstream="')


class Scraped(Protocol):
    """An upstream that may tell metrics."""

    @property
    def origin(self) -> str: ...

    async def text(self, path: str, limit: int) -> str:
        """What stands under a path.

        Raises:
            APIError: it cannot be reached, refuses, or what stands there is longer than the limit.
        """
        ...


class PassedOn:
    """The metrics of others.

    Args:
        upstreams: those that there are now.
    """

    def __init__(self, upstreams: Callable[[], Sequence[Scraped]]) -> None:
        self.up: dict[str, bool] = {}
        """By origin, whether it has told something when it was asked last."""
        self._upstreams = upstreams
        self._mute: set[str] = set()
        """Those that have no metrics to tell."""
        self._lock = asyncio.Lock()
        self._told: list[tuple[str, str]] = []
        self._at = float("-inf")

    async def ask(self) -> list[tuple[str, str]]:
        """Each upstream's origin and what it tells."""
        async with self._lock:
            if time.monotonic() - self._at > KEPT_S:
                asked = [each for each in self._upstreams() if each.origin not in self._mute]
                texts = await asyncio.gather(*map(self._ask, asked))
                self._told = [(each.origin, text) for each, text in zip(asked, texts, strict=True) if text]
                self.up = {each.origin: bool(text) for each, text in zip(asked, texts, strict=True)}
                self._at = time.monotonic()
            return self._told

    async def _ask(self, upstream: Scraped) -> str:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await upstream.text("/metrics", MAX_BYTES)
        except NoSuchPath:
            self._mute.add(upstream.origin)
            log.info("upstream %s tells no metrics", upstream.origin)
        except (APIError, TimeoutError) as error:
            log.debug("upstream %s tells no metrics now: %s", upstream.origin, type(error).__name__)
        return ""


def of_process() -> bytes:
    """What libraries in this process tell, vLLM where its statistics are on, and the process itself."""
    return generate_latest(Plain(REGISTRY))


def merged(own: bytes, told: Iterable[tuple[str, str]]) -> bytes:
    """Our own text, and behind it what upstreams told, each of their samples with the label `upstream`."""
    known = {about[1] for line in own.decode().split("\n") if (about := _about(line))}
    families: dict[str, _Told] = {}
    for origin, text in told:
        _read(text, f'upstream="{_escaped(origin)}"', families)
    lines = [line for name, family in families.items() if name not in known for line in family.lines]
    return own + "".join(f"{line}\n" for line in lines).encode()


@dataclass(slots=True)
class _Told:
    """One family, of all upstreams together: whoever reads it wants its samples in one place."""

    about: dict[str, str] = field(default_factory=dict)
    """HELP and TYPE, each as it was told first."""
    samples: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return [*self.about.values(), *self.samples] if self.samples else []


def _read(text: str, label: str, families: dict[str, _Told]) -> None:
    current = ""
    for line in text.split("\n"):
        if about := _about(line):
            what, current = about
            families.setdefault(current, _Told()).about.setdefault(what, line)
        elif (match := _SAMPLE.fullmatch(line)) and not _TAKEN.search(match[2] or ""):
            name, labels, value = match.groups()
            # Those of a histogram have endings.
            family = current if current and name.startswith(current) else name
            said = ",".join(filter(None, [label, (labels or "").rstrip(",")]))
            families.setdefault(family, _Told()).samples.append(f"{name}{{{said}}}{value}")


def _about(line: str) -> tuple[str, str] | None:
    """What a line says of which family, if it is such a line."""
    match = _ABOUT.fullmatch(line)
    return (match[1] or match[3], match[2] or match[4]) if match else None


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
