"""The composition root: what is checked before anything starts."""

import sys
from pathlib import Path
from typing import Any

import pytest

from prm import FakePRM
from tts_server import app as root
from tts_server.app import build_engine, build_prms, create_app
from tts_server.config import ConfigError, Preset, Settings
from tts_server.engines.fake import FakeEngine
from tts_server.engines.openai_http import OpenAIEngine
from tts_server.engines.replicated import ReplicatedEngine


def preset(**fields: Any) -> Settings:
    return Settings(presets={"mine": Preset.model_validate(fields)})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (preset(strategy="best_off_n"), r"presets\.mine\.strategy: unknown strategy 'best_off_n'; known: .*best_of_n"),
        (preset(strategy="best_of_n", m=4), r"presets\.mine: unknown option 'm' of strategy 'best_of_n'; allowed: n"),
        (preset(strategy="best_of_n", n="4"), r"presets\.mine: n: Input should be a valid integer"),
        (preset(strategy="best_of_n", prm="big"), r"presets\.mine\.prm: unknown reward model 'big'; loaded: fake"),
        (Settings(default_preset="nothing"), "default_preset: unknown preset or strategy 'nothing'; known: low"),
        (Settings(efforts={"low": "nothing"}), r"efforts\.low: unknown preset or strategy 'nothing'"),
    ],
)
def test_a_bad_preset_stops_the_start_with_one_sentence(settings: Settings, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        create_app(FakeEngine(), [FakePRM()], settings)
    assert "\n" not in str(caught.value)


def test_a_good_preset_starts() -> None:
    settings = preset(strategy="best_of_n", n=4, prm="fake", selector="weighted")
    settings.default_preset = "mine"
    create_app(FakeEngine(), [FakePRM()], settings)


def test_the_fake_engine_is_named_and_bounded_as_configured() -> None:
    engine = build_engine(Settings(engine="fake"))
    assert (engine.model, engine.max_model_len) == ("fake", 32768)
    engine = build_engine(Settings(engine="fake", served_name="other", max_model_len=99))
    assert (engine.model, engine.max_model_len) == ("other", 99)


@pytest.mark.parametrize("engine", ["fake", "openai"])
def test_a_tool_parser_of_another_engine_stops_the_start(engine: str) -> None:
    settings = Settings.model_validate(
        {"engine": engine, "upstream": ("http://127.0.0.1:9",), "tool_parser": "qwen3_coder"}
    )
    with pytest.raises(ConfigError, match=r"tool_parser: 'qwen3_coder' is not read here, which are hermes, llama3_js"):
        build_engine(settings)


def test_a_tool_parser_of_vllm_is_handed_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(root, "find_spec", lambda name: name)
    for parser, given in [("qwen3_coder", "qwen3_coder"), ("auto", None), ("hermes", None)]:
        seen: dict[str, Any] = {}
        monkeypatch.setattr("tts_server.engines.vllm.VLLMEngine", lambda path, seen=seen, **given: seen.update(given))
        build_engine(Settings(engine="vllm", model=str(tmp_path), tool_parser=parser))
        assert seen["tool_parser"] == given


def test_without_an_engine_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # type: ignore[arg-type]
    monkeypatch.setattr(root, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError,
        match=r"vLLM is not installed, and neither is Transformers; install one, in a checkout by `make install`",
    ):
        build_engine(Settings())


@pytest.mark.parametrize(
    ("engine", "needs"), [("vllm", "vllm"), ("transformers", "torch and transformers"), ("transformers", "torch")]
)
def test_an_engine_that_is_not_installed_is_told_before_its_weights_are_fetched(
    monkeypatch: pytest.MonkeyPatch, engine: str, needs: str
) -> None:
    monkeypatch.setattr(root, "find_spec", lambda name: None if name in needs.split() else name)
    monkeypatch.setattr("tts_server.weights.catalog.resolve", lambda name: pytest.fail("the weights were looked for"))
    with pytest.raises(ConfigError, match=rf"^engine: {engine} needs {needs}, not .*pip install '\.\[{engine}\]'$"):
        build_engine(Settings.model_validate({"engine": engine}))


def test_auto_falls_back_to_transformers_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # type: ignore[arg-type]
    monkeypatch.setattr(root, "find_spec", lambda name: None if name == "vllm" else object())
    assert root.choose_engine() == "transformers"
    assert "engine: transformers, because vLLM is not installed" in caplog.text


@pytest.mark.parametrize(("name", "built"), [("none", []), ("fake", ["fake"]), ("judge", ["judge"])])
def test_reward_models_by_name(name: str, built: list[str]) -> None:
    assert [prm.name for prm in build_prms(Settings(prm=name), FakeEngine())] == built


def test_an_unknown_reward_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"prm: Cannot find the model 'big'"):
        build_prms(Settings(prm="big"), FakeEngine())


def test_several_reward_models_keep_their_order() -> None:
    assert [prm.name for prm in build_prms(Settings(prm="fake,judge"), FakeEngine())] == ["fake", "judge"]


def test_the_published_errors_are_those_that_are_sent() -> None:
    spec = create_app(FakeEngine()).openapi()
    assert "HTTPValidationError" not in spec["components"]["schemas"]
    error = spec["components"]["schemas"]["ErrorDetail"]
    assert set(error["required"]) == {"message", "type", "param", "code"}
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            told = operation["responses"]
            assert "422" not in told, path
            for status in ("400", "4XX", "5XX"):
                schema = told[status]["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorBody"}
    assert "text/event-stream" in spec["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]


def test_an_upstream_that_no_reward_model_uses_is_refused() -> None:
    with pytest.raises(ConfigError, match="prm_upstream: no reward model of prm = 'judge' has weights to run there"):
        build_prms(Settings(prm="judge", prm_upstream="http://127.0.0.1:9"), FakeEngine())


def test_one_upstream_is_spoken_to_directly_and_several_as_replicas() -> None:
    one = build_engine(Settings(engine="openai", upstream=("http://127.0.0.1:9",)))
    assert isinstance(one, OpenAIEngine)
    several = build_engine(Settings(engine="openai", upstream=("http://127.0.0.1:9/v1", "http://127.0.0.1:10")))
    assert isinstance(several, ReplicatedEngine)
    assert [upstream.origin for upstream in several.upstreams] == ["http://127.0.0.1:9", "http://127.0.0.1:10"]


@pytest.mark.parametrize(
    ("upstreams", "said"),
    [(("ftp://x",), "upstream: The upstream's URL must be http"), (("http://x", "http://x/v1"), "given twice")],
)
def test_an_upstream_that_is_none_is_a_mistake_in_the_configuration(upstreams: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_engine(Settings(engine="openai", upstream=upstreams))
