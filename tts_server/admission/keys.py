"""API keys: where they stand, whose they are, and what they may ask for. Keeps their hashes only."""

import hashlib
import hmac
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from strategies.core.plain_words import cause
from tts_server.config import ConfigError, KeyLimits, Settings, told

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_KEY = re.compile(r"[!-~]{1,512}")
"""What fits a header."""
_HASH = re.compile(r"[0-9a-fA-F]{64}")
_HASHED = "sha256:"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that open the server; without any it is open to everybody."""

    owners: Mapping[bytes, str] = field(default_factory=dict)
    """SHA-256 of each key → the name of who has it."""
    limits: Mapping[str, KeyLimits] = field(default_factory=dict)
    """Of each owner."""

    def __bool__(self) -> bool:
        return bool(self.owners)

    def owner_of(self, key: str) -> str | None:
        """Who has this key; None where nobody does."""
        digest = _digest(key)
        # Every key is compared, so the time tells nothing.
        found = [owner for known, owner in self.owners.items() if hmac.compare_digest(digest, known)]
        return found[0] if found else None


class _Entry(NamedTuple):
    owner: str
    digest: bytes
    limits: KeyLimits


class _KeyTable(KeyLimits):
    """An owner's table in a key file."""

    key: str | list[str] = Field(default_factory=list)
    sha256: str | list[str] = Field(default_factory=list)


def read_keys(settings: Settings) -> Keys:
    """The keys of the settings and of their file.

    A file that ends in `.toml` holds a table for each owner, any other a key a line: `KEY`, `NAME:KEY`, `sha256:HASH`
    or `NAME:sha256:HASH`; blank lines and `#` comments do not count. A key without a name is its own owner. Several
    keys of one name have one owner.

    Raises:
        ConfigError: the file cannot be read, holds no key, or something in it is none. The message quotes no key.
    """
    entries: list[_Entry] = []
    if settings.api_key_file is not None:
        entries += _of_file(settings.api_key_file, settings.key_limits)
    if settings.api_keys is not None:
        lines = settings.api_keys.get_secret_value().split(",")
        entries += _of_lines("api_keys", lines, settings.key_limits)
        if not entries:
            raise ConfigError("api_keys: there is no key in it")
    owners: dict[bytes, str] = {}
    for owner, digest, _ in entries:
        if owners.setdefault(digest, owner) != owner:
            raise ConfigError(f"api_key_file, api_keys: {owners[digest]!r} and {owner!r} have the same key")
    return Keys(owners, {entry.owner: entry.limits for entry in reversed(entries)})


def _of_file(path: Path, limits: KeyLimits) -> list[_Entry]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api_key_file: {path} cannot be read: {cause(error)}") from None
    place = f"api_key_file: {path}"
    written = _of_toml(place, text, limits) if path.suffix == ".toml" else _of_lines(place, text.splitlines(), limits)
    entries = list(written)
    if not entries:
        raise ConfigError(f"{place} holds no key")
    return entries


def _of_lines(place: str, lines: Iterable[str], limits: KeyLimits) -> Iterator[_Entry]:
    for number, line in enumerate(lines, 1):
        written = line.strip()
        if not written or written.startswith("#"):
            continue
        owner, colon, key = written.partition(":")
        if not colon or written.startswith(_HASHED):
            owner, key = "", written
        digest = _read_key(f"{place}, line {number}", key)
        yield _Entry(_checked_name(f"{place}, line {number}", owner or f"key-{digest.hex()[:12]}"), digest, limits)


def _of_toml(place: str, text: str, limits: KeyLimits) -> Iterator[_Entry]:
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{place}: {error}") from None
    for owner, table in tables.items():
        where = f"{place}: {_checked_name(place, owner)}"
        try:
            read = _KeyTable.model_validate(table)
        except ValidationError as error:
            raise ConfigError("; ".join(f"{where}: {told(e)}" for e in error.errors(include_input=False))) from None
        keys = [*_listed(read.key), *(_HASHED + digest for digest in _listed(read.sha256))]
        if not keys:
            raise ConfigError(f"{where} needs a key or a sha256")
        own = {name: getattr(read, name) for name in read.model_fields_set & KeyLimits.model_fields.keys()}
        for key in keys:
            yield _Entry(owner, _read_key(where, key), limits.model_copy(update=own))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _checked_name(place: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{place}: a key's name is 1 to 64 of letters, digits, dot, dash, underscore and @")
    return name


def _read_key(place: str, written: str) -> bytes:
    """The digest of a key, or the one that stands in its place."""
    if written.startswith(_HASHED):
        if not _HASH.fullmatch(digest := written.removeprefix(_HASHED)):
            raise ConfigError(f"{place}: behind sha256 stand the key's 64 hexadecimal digits")
        return bytes.fromhex(digest)
    if not _KEY.fullmatch(written):
        raise ConfigError(f"{place}: a key is 1 to 512 visible ASCII characters without spaces")
    return _digest(written)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
