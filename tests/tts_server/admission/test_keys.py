"""Where API keys are read from, and that nothing ever says one."""

import hashlib
import hmac
from pathlib import Path

import pytest

from tts_server.admission.keys import Keys, read_keys
from tts_server.config import ConfigError, KeyLimits, Settings, load

SECRET = "sk-very-secret"
HASH = hashlib.sha256(SECRET.encode()).hexdigest()


def read(path: Path, text: str, **settings: object) -> Keys:
    path.write_text(text)
    return read_keys(Settings.model_validate({"api_key_file": path, **settings}))


def test_without_keys_there_are_none() -> None:
    assert not read_keys(Settings())
    assert read_keys(Settings()).owner_of("") is None


@pytest.mark.parametrize(
    ("line", "owner"),
    [
        (SECRET, f"key-{HASH[:12]}"),
        (f"  {SECRET}\t", f"key-{HASH[:12]}"),
        (f"alice:{SECRET}", "alice"),
        (f"sha256:{HASH}", f"key-{HASH[:12]}"),
        (f"alice@example.org:sha256:{HASH.upper()}", "alice@example.org"),
    ],
)
def test_a_line_names_a_key_or_its_hash_and_whose_it_is(line: str, owner: str, tmp_path: Path) -> None:
    known = read(tmp_path / "keys", f"# the team\n\n{line}\n  # bob:no\n")
    assert known.owner_of(SECRET) == owner
    for wrong in ("", "no", SECRET[:-1], SECRET + "x", HASH, f"sha256:{HASH}", "# the team", line.strip() + " "):
        assert known.owner_of(wrong) is None, wrong
    assert SECRET not in repr(known)


def test_a_key_with_colons_needs_a_name(tmp_path: Path) -> None:
    assert read(tmp_path / "keys", "alice:a:b:c").owner_of("a:b:c") == "alice"


def test_two_keys_of_one_name_have_one_owner(tmp_path: Path) -> None:
    known = read(tmp_path / "keys", "alice:old\nalice:new\nbob:other")
    assert [known.owner_of(key) for key in ("old", "new", "other")] == ["alice", "alice", "bob"]
    assert set(known.limits) == {"alice", "bob"}


def test_the_environment_has_keys_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("alice:a")
    monkeypatch.setenv("TTS_SERVER_API_KEYS", "bob:b, c ,")
    monkeypatch.setenv("TTS_SERVER_KEY_LIMITS__REQUESTS_PER_MINUTE", "7")
    settings = load(api_key_file=tmp_path / "keys")
    known = read_keys(settings)
    assert [known.owner_of(key) for key in ("a", "b")] == ["alice", "bob"]
    assert known.owner_of("c")
    assert all(limits == KeyLimits(requests_per_minute=7) for limits in known.limits.values())
    assert "bob" not in repr(settings)


def test_a_toml_file_gives_each_owner_limits_over_those_of_all(tmp_path: Path) -> None:
    text = f"""
[alice]
key = "a"
requests_per_minute = 60
[bob]
sha256 = ["{HASH}", "{"0" * 64}"]
key = ["b"]
tokens_per_hour = 5000
"""
    known = read(tmp_path / "keys.toml", text, key_limits={"requests_per_minute": 9, "concurrent_requests": 2})
    assert [known.owner_of(key) for key in ("a", "b", SECRET)] == ["alice", "bob", "bob"]
    assert known.limits == {
        "alice": KeyLimits(requests_per_minute=60, concurrent_requests=2),
        "bob": KeyLimits(requests_per_minute=9, concurrent_requests=2, tokens_per_hour=5000),
    }


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("keys", "# nobody\n\n", "holds no key"),
        ("keys", f"alice:{SECRET} {SECRET}", "line 1: a key is 1 to 512 visible ASCII characters"),
        ("keys", f"ok\nalice:{SECRET}é", "line 2: a key is 1 to 512 visible ASCII characters"),
        ("keys", "alice:", "line 1: a key is 1 to 512"),
        ("keys", f"{SECRET}!:{SECRET}", "line 1: a key's name is 1 to 64 of"),
        ("keys", f"alice:sha256:{SECRET}", "line 1: behind sha256 stand the key's 64 hexadecimal digits"),
        ("keys", f"alice:sha256:{HASH[:-1]}", "line 1: behind sha256"),
        ("keys", f"alice:{SECRET}\nbob:sha256:{HASH}", "'alice' and 'bob' have the same key"),
        ("keys.toml", "", "holds no key"),
        ("keys.toml", f"[alice]\nkey = {SECRET}", "keys.toml: Invalid value (at line 2"),
        ("keys.toml", f"alice = '{SECRET}'", "alice: Input should be an object"),
        ("keys.toml", "[alice]\nrequests_per_minute = 1", "alice needs a key or a sha256"),
        ("keys.toml", f"[alice]\nkey = '{SECRET}'\nrpm = 1", "alice: unknown key rpm; allowed: requests_per_minute, "),
        ("keys.toml", f"[alice]\nkey = '{SECRET}'\ntokens_per_hour = 0", "alice: tokens_per_hour: Input should be"),
        ("keys.toml", f"[alice]\nkey = ['{SECRET} ']", "alice: a key is 1 to 512 visible"),
        ("keys.toml", f"[alice]\nsha256 = '{SECRET}'", "alice: behind sha256"),
        ("keys.toml", f"['a b']\nkey = '{SECRET}'", "a key's name is 1 to 64 of"),
    ],
)
def test_a_mistake_is_told_by_its_place_and_without_the_key(name: str, text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / name, text)
    assert str(caught.value).startswith("api_key_file")
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_mistake_in_the_environment_is_told_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, said in ((f"bob:b,alice:{SECRET} x", "api_keys, line 2: a key is"), (" , ", "api_keys: there is no key")):
        monkeypatch.setenv("TTS_SERVER_API_KEYS", text)
        with pytest.raises(ConfigError, match=said) as caught:
            read_keys(load())
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("name", "said"), [("none", "No such file"), ("binary", "UTF-8")])
def test_a_file_that_cannot_be_read_is_named(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=f"api_key_file: .*{said}"):
        read_keys(Settings(api_key_file=tmp_path / name))


@pytest.mark.parametrize("key", ["k0", "k9", "unknown", ""])
def test_a_key_is_compared_with_every_known_one_in_constant_time(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    known = Keys({hashlib.sha256(f"k{i}".encode()).digest(): f"o{i}" for i in range(10)})
    assert known.owner_of(key) == {"k0": "o0", "k9": "o9"}.get(key)
    assert compared == list(known.owners)
