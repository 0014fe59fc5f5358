"""What `--prm` may say."""

import pytest

from tts_server.config import ConfigError
from tts_server.prm_serving.source import Source, parse


@pytest.mark.parametrize(
    ("text", "sources", "names"),
    [
        ("judge", [Source("judge")], ["judge"]),
        ("none", [], []),
        ("fake, judge", [Source("fake"), Source("judge")], ["fake", "judge"]),
        ("Qwen/Qwen2.5-Math-PRM-7B", [Source("auto", "Qwen/Qwen2.5-Math-PRM-7B")], ["Qwen2.5-Math-PRM-7B"]),
        ("auto:models/prm/", [Source("auto", "models/prm/")], ["prm"]),
        ("trl:/a/b,judge", [Source("trl", "/a/b"), Source("judge")], ["b", "judge"]),
        ("lora:out/adapter", [Source("lora", "out/adapter")], ["adapter"]),
        ("generative", [Source("generative")], ["generative"]),
        ("generative:launch/ThinkPRM-1.5B", [Source("generative", "launch/ThinkPRM-1.5B")], ["ThinkPRM-1.5B"]),
    ],
)
def test_sources(text: str, sources: list[Source], names: list[str]) -> None:
    assert parse(text) == sources
    assert [source.name for source in parse(text)] == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no reward model"),
        ("judge,", "'' is no reward model"),
        ("prm:x", "KIND is one of auto, generative, lora, qwen_math, math_shepherd"),
        ("trl:", "'trl:' is no reward model"),
        ("http://host/v1", "is no reward model"),
        ("judge,none", "none stands alone"),
        ("a/m,b/m", "two reward models would be called 'm'"),
    ],
)
def test_what_is_none_is_an_error(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


def test_which_have_weights_of_their_own() -> None:
    assert [s.has_weights for s in parse("judge,lora:a,auto:b,generative,generative:c")] == [
        False,
        False,
        True,
        False,
        True,
    ]
