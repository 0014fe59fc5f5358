"""Where settings come from, which wins, and what a mistake says."""

from pathlib import Path

import pytest

from tts_server.config import ConfigError, Settings, load


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "server.toml"


def test_flags_over_environment_over_file_over_defaults(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('port = 1\nhost = "file"\nmodel = "file"\n')
    monkeypatch.setenv("TTS_SERVER_HOST", "env")
    monkeypatch.setenv("TTS_SERVER_MODEL", "env")
    settings = load(toml, model="flag", upstream=None)
    assert (settings.port, settings.host, settings.model) == (1, "env", "flag")
    assert settings.max_requests == 1024


def test_out_of_the_box_efforts_are_presets_and_the_default_is_single() -> None:
    settings = load()
    assert settings.default_preset == "single"
    assert settings.efforts == {
        "none": "single",
        "minimal": "single",
        "low": "low",
        "medium": "medium",
        "high": "high",
        "xhigh": "xhigh",
    }
    presets = [settings.presets[effort] for effort in ("low", "medium", "high", "xhigh")]
    assert {preset.strategy for preset in presets} == {"compute_optimal"}
    assert [preset.budget.max_tokens for preset in presets] == [4096, 8192, 16384, 32768]


def test_a_preset_holds_strategy_options_and_budget(toml: Path) -> None:
    toml.write_text('[presets.quick]\nstrategy = "best_of_n"\nn = 4\nprm = "fake"\nbudget = {max_tokens = 9}\n')
    preset = load(toml).presets["quick"]
    assert (preset.strategy, preset.options, preset.prm, preset.budget.max_tokens) == ("best_of_n", {"n": 4}, "fake", 9)
    assert "low" in load(toml).presets


def test_one_limit_leaves_the_default_of_the_others(toml: Path) -> None:
    toml.write_text("[max_request]\ndeadline_s = 60\n")
    assert load(toml).max_request.deadline_s == 60
    assert load(toml).max_request.max_samples == 256


def test_nested_numbers_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTS_SERVER_MAX_REQUEST__MAX_TOKENS", "500")
    monkeypatch.setenv("TTS_SERVER_EFFORTS__LOW", "single")
    settings = load()
    assert settings.max_request.max_tokens == 500
    assert settings.efforts["low"] == "single"


def test_several_upstreams_are_a_list_or_have_commas_between(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ("http://a/v1", "http://b")
    assert load(upstream=list(both)).upstream == both
    assert load(upstream="http://a/v1").upstream == both[:1]
    toml.write_text('upstream = ["http://a/v1", "http://b"]')
    assert load(toml).upstream == both
    toml.write_text('upstream = "http://c"')
    monkeypatch.setenv("TTS_SERVER_UPSTREAM", "http://a/v1, http://b,")
    assert load(toml).upstream == both
    assert load(toml, upstream=["http://d"]).upstream == ("http://d",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "unknown key 'prot'; known: host, port"),
        ("[max_request]\nmax_tokns = 1", "max_request: unknown key max_tokns; allowed: max_samples, max_tokens"),
        ('port = "x"', "port: Input should be a valid integer"),
        ("port = 70000", "port: Input should be less than or equal to 65535"),
        ("[presets.x]\nn = 4", "presets.x.strategy: Field required"),
        ('engine = "openai"', "upstream: the engine 'openai' needs the upstream's base URL"),
        ('prm_backend = "http"', "prm_upstream: the backend 'http' needs the base URL"),
        ('prm_backend = "vllm"\nprm_upstream = "http://x"', "the backend 'vllm' has no upstream, only 'http' has"),
        ('prm_backend = "tpu"', "prm_backend: Input should be 'auto'"),
        ("policy_force = true", "policy_force: there is no policy to force"),
        ('engine = "tgi"', "engine: Input should be 'auto'"),
        ('[efforts]\nmaximal = "low"', "efforts.maximal"),
        ("port =", "server.toml cannot be read: Invalid value"),
        ("[presets.x]\nstrategy = 'single'\nbudget = {deadline_s = nan}", "presets.x.budget.deadline_s"),
    ],
)
def test_a_mistake_in_the_file_names_its_key(toml: Path, text: str, said: str) -> None:
    toml.write_text(text)
    with pytest.raises(ConfigError, match=r"\A.+\Z") as caught:
        load(toml)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["TTS_SERVER_PROT", "tts_server_prot", "TTS_SERVER_MAX_REQ__MAX_TOKENS"])
def test_an_unknown_variable_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError, match=f"unknown environment variable {name}; known: .*TTS_SERVER_PORT"):
        load()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TTS_SERVER_PORT", "x", "port: Input should be a valid integer"),
        ("TTS_SERVER_MAX_REQUEST__FOO", "1", "max_request: unknown key foo"),
        ("TTS_SERVER_PRESETS", "{", "TTS_SERVER_PRESETS: it is not JSON"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said):
        load()


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"config\.toml cannot be read: it is not text in UTF-8"):
        load(tmp_path / "config.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml does not exist"):
        load(tmp_path / "none.toml")


def test_the_upstream_key_is_not_shown() -> None:
    assert "secret" not in repr(load(upstream_api_key="secret"))


def test_origins_of_pages_are_listed_in_any_of_three_ways(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('cors_origins = ["http://localhost:3000", "app://obsidian.md"]\n')
    assert load(toml).cors_origins == ("http://localhost:3000", "app://obsidian.md")
    monkeypatch.setenv("TTS_SERVER_CORS_ORIGINS", "HTTPS://A.test, null")
    assert load(toml).cors_origins == ("https://a.test", "null")
    assert load(cors_origins="*").cors_origins == ("*",)
    assert load().cors_origins == ("https://a.test", "null")


@pytest.mark.parametrize("origin", ["localhost:3000", "http://localhost:3000/", "http://*", "http://x/page", "//x"])
def test_what_no_browser_sends_as_an_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"cors_origins.*is not an origin; allowed: SCHEME://HOST"):
        load(cors_origins=origin)


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "etc" / "server.toml"
    written = {name: "kept/here" for name, field in Settings.model_fields.items() if "Path" in str(field.annotation)}
    assert written.keys() >= {"api_key_file", "data_dir", "policy"}
    named = {"model": "./models/m", "prm": "judge, qwen_math:../prm,./other"}
    file.write_text("".join(f'{name} = "{value}"\n' for name, value in (written | named).items()))
    monkeypatch.chdir(tmp_path / "elsewhere")
    for config in (file, Path("../etc/server.toml")):
        settings = load(config)
        for name in written:
            assert getattr(settings, name).resolve() == tmp_path / "etc" / "kept" / "here", name
        assert Path(settings.model or "").resolve() == tmp_path / "etc" / "models" / "m"
        judge, math, other = settings.prm.split(",")
        assert (judge, Path(math.partition("qwen_math:")[2]).resolve()) == ("judge", tmp_path / "prm")
        assert Path(other).resolve() == tmp_path / "etc" / "other"
    # What is told where the server is started is relative to that place, and a name is no path.
    file.write_text('model = "org/name"\nprm = "org/prm"\n')
    settings = load(file, api_key_file=Path("keys"))
    assert (settings.model, settings.prm, settings.api_key_file) == ("org/name", "org/prm", Path("keys"))


def test_a_path_may_begin_at_home(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    toml.write_text('data_dir = "~/data"\n')
    monkeypatch.setenv("TTS_SERVER_API_KEY_FILE", "~/keys")
    settings = load(toml, policy=Path("~/policy.json"))
    paths = (settings.data_dir, settings.api_key_file, settings.policy)
    assert paths == (Path("/somebody/data"), Path("/somebody/keys"), Path("/somebody/policy.json"))
