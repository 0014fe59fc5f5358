"""The server's configuration: flags over environment (`TTS_SERVER_…`) over a TOML file over these defaults.

Checked once, at start; a key that is not known fails with its name. Nothing else reads the environment, but what
OpenTelemetry's own variables say of it (`otel.environment`).
"""

import os
import re
from ipaddress import ip_address
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal

from platformdirs import user_data_path
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from strategies.core.plain_words import cause, reason

ENV_PREFIX = "TTS_SERVER_"
DEFAULT_MODEL = "qwen2.5-coder-0.5b-instruct"
"""Served where nothing else is asked for: small, and on the package index too."""
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
PRMBackend = Literal["auto", "transformers", "vllm", "http"]
EngineName = Literal["auto", "vllm", "openai", "transformers", "fake"]


def _listed(given: Any) -> Any:
    return [part for each in given.split(",") if (part := each.strip())] if isinstance(given, str) else given


def _origin(given: str) -> str:
    origin = given.lower()
    if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
        raise ValueError(
            f"{given!r} is not an origin; allowed: SCHEME://HOST or SCHEME://HOST:PORT without a path, or *"
        )
    return origin


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s*]+")
Origin = Annotated[str, AfterValidator(_origin)]
Origins = Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_listed)]
URLs = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]


class ConfigError(Exception):
    """The configuration cannot be used; the message names the key."""


class _Table(BaseModel):
    """A table of settings, which names the key that it does not know."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        unknown = sorted(given.keys() - cls.model_fields.keys()) if isinstance(given, dict) else []
        if unknown:
            raise PydanticCustomError(
                "unknown_key",
                "unknown key {field}; allowed: {allowed}",
                {"field": unknown[0][:80], "allowed": ", ".join(cls.model_fields)},
            )
        return given


class BudgetConfig(_Table):
    """What one request may spend, as `strategies.core.account.Budget` says it."""

    model_config = ConfigDict(strict=True)

    max_samples: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    max_prm_tokens: int | None = Field(None, ge=0)
    deadline_s: float | None = Field(None, gt=0)


class RequestLimit(BudgetConfig):
    """The most that any request may spend; the environment writes its numbers as text."""

    model_config = ConfigDict(strict=False)

    max_samples: int | None = Field(256, ge=1)


class KeyLimits(_Table):
    """What the requests of one API key may ask for together; no limit where there is None."""

    requests_per_minute: int | None = Field(None, ge=1)
    concurrent_requests: int | None = Field(None, ge=1)
    tokens_per_hour: int | None = Field(None, ge=1)
    """Generated tokens and those of the reward model."""


class BatchConfig(BaseModel):
    """How many and how large files and batches may be, and how far they step back."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    concurrency: int = Field(8, ge=1)
    """Lines of batches under way at once. Each interactive request takes the place of one: with as many of them as
    this, no line is begun."""
    max_file_bytes: int = Field(200 * 2**20, ge=1024)
    """Larger files are refused."""
    max_lines: int = Field(50_000, ge=1)
    """Requests in one batch."""
    max_stored_bytes: int = Field(10 * 2**30, ge=0)
    """All files, requests and answers together; what would go beyond is refused."""


class Preset(BaseModel):
    """A strategy with options and a budget, under a name; the strategy's options stand beside the fields."""

    model_config = ConfigDict(extra="allow")

    strategy: str
    budget: BudgetConfig = Field(default_factory=BudgetConfig)
    prm: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _effort_presets() -> dict[str, Preset]:
    tokens = {"low": 4096, "medium": 8192, "high": 16384, "xhigh": 32768}
    return {
        name: Preset(strategy="compute_optimal", budget=BudgetConfig(max_tokens=most)) for name, most in tokens.items()
    }


class Settings(BaseSettings):
    """Everything that can be configured."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    model: str | None = None
    """A name of the catalog, a local directory or a hub id; with the engine `openai`, the upstream's name for it. If
    not given, a small model of the catalog, or the first that the upstream serves."""
    served_name: str | None = None
    """What clients call the model; its own name if not given."""
    engine: EngineName = "auto"
    """What generates."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Handed to the engine as they are, for vLLM its engine arguments."""
    max_model_len: int | None = Field(None, ge=16)
    """Tokens of prompt and completion together; the model's own limit if not given."""
    upstream: URLs = ()
    """Base URL of the OpenAI-compatible upstream of the engine `openai`; comma-separated, or a list, if several serve
    the same model."""
    upstream_api_key: SecretStr | None = None
    """The key that goes to the upstreams, and nowhere else."""
    tool_parser: str = "auto"
    """How the model writes calls of tools: `hermes`, `llama3_json`, or with the engine `vllm` any name that vLLM has
    for `--tool-call-parser`; `auto` looks at its chat template."""
    prm: str = "judge"
    """The reward models, the default first: `judge` (the policy itself), `fake`, `none`, or KIND:MODEL, where KIND may
    be left out if the model tells it; comma-separated if several."""
    prm_backend: PRMBackend = "auto"
    """Where a reward model with weights runs; `auto` is `http` if there is a `prm_upstream`, vLLM on a GPU and for the
    policy's adapters, and else Transformers."""
    prm_upstream: str | None = None
    """Base URL of the vLLM server that serves the reward model."""
    prm_upstream_api_key: SecretStr | None = None
    """The key that goes to `prm_upstream`, and nowhere else."""
    prm_args: dict[str, Any] = Field(default_factory=dict)
    """Handed to the reward model's backend as they are: vLLM's engine arguments, or those of `from_pretrained`."""
    prm_max_model_len: int | None = Field(None, ge=16)
    """Tokens of a question and its solution; the reward model's own limit if not given."""
    prm_separator: str | None = None
    """Between steps, for reward models that were trained with one of several."""
    prm_reference: bool = True
    """Whether a reward model on vLLM is held, at its start, against a plain forward pass of its weights where they are
    on this machine; whether step by step it scores as in one go is looked at in any case."""
    api_key_file: Path | None = None
    """File of API keys, one a line or in TOML; without any key none is asked for."""
    api_keys: SecretStr | None = None
    """API keys beside those of the file, written like its lines and separated by commas."""
    key_limits: KeyLimits = KeyLimits()
    """What each key may ask for, unless the key file says otherwise of it."""
    cors_origins: Origins = ()
    """Origins whose pages may ask from a browser, such as `http://localhost:3000`, comma-separated or a list; `*` is
    every page. Browsers let none ask where it is empty."""
    max_body_bytes: int = Field(32 * 2**20, ge=1024)
    """Larger requests are refused."""
    max_requests: int = Field(1024, ge=1)
    """Requests under way at once; more are refused with 429."""
    max_live_samples: int | None = Field(None, ge=1)
    """Samples that grow at once in the engine; further ones wait for their turn, fairly between keys and requests. If
    not given, an eighth more than vLLM's `max_num_seqs`, so that it never waits for us, and 256 for other engines."""
    max_waiting_samples: int = Field(4096, ge=1)
    """With as many samples waiting, new requests are refused with 429."""
    data_dir: Path = Field(default_factory=lambda: user_data_path("tts-server"))
    """Where files, batches and traces are kept; one server at a time."""
    batch: BatchConfig = BatchConfig()
    """Limits of files and batches."""
    traces: Literal["off", "redacted", "full"] = "redacted"
    """What is kept of each search: nothing, all but what clients and models wrote, or all."""
    traces_max_bytes: int = Field(256 * 2**20, ge=2**20)
    """Of all traces together; the oldest go first."""
    traces_max_age_s: float = Field(7 * 24 * 3600, gt=0)
    """Older traces go."""
    max_request: RequestLimit = RequestLimit()
    """The most that any request may spend, whatever it asks for."""
    grace_s: float = Field(30.0, ge=0)
    """Seconds that requests under way get to end when the server is told to stop."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged."""
    log_format: Literal["console", "json"] = "console"
    """For eyes, or a JSON object a line for what gathers logs."""
    log_prompts: bool = False
    """Whether log lines may quote what was asked and answered, as errors do."""
    policy: Path | None = None
    """File that `tts-bench calibrate` wrote: how compute is spent best on this model. Published results stand in for
    it where there is none."""
    policy_force: bool = False
    """Whether the policy is used whatever model, reward model and prompt it was fitted for."""
    presets: dict[str, Preset] = Field(default_factory=dict)
    """Named strategies with options and budget, beside `low`, `medium`, `high` and `xhigh`: `compute_optimal` with
    budgets of 4096, 8192, 16384 and 32768 tokens."""
    efforts: dict[Effort, str] = Field(default_factory=dict)
    """Which preset or strategy each `reasoning_effort` stands for; the preset of its name unless said here."""
    default_preset: str = "single"
    """The preset or strategy of requests that name none."""

    @model_validator(mode="after")
    def _complete(self) -> "Settings":
        if self.engine == "openai" and not self.upstream:
            raise ValueError("upstream: the engine 'openai' needs the upstream's base URL")
        if self.prm_backend == "http" and not self.prm_upstream:
            raise ValueError("prm_upstream: the backend 'http' needs the base URL of the reward model's vLLM server")
        if self.prm_upstream and self.prm_backend not in ("auto", "http"):
            raise ValueError(f"prm_upstream: the backend {self.prm_backend!r} has no upstream, only 'http' has")
        if self.policy_force and not self.policy:
            raise ValueError("policy_force: there is no policy to force")
        for name in _PATHS:
            path = getattr(self, name)
            if path is not None and str(path).startswith("~"):
                setattr(self, name, path.expanduser())
        self.presets = {**_effort_presets(), **self.presets}
        named = {e: e for e in ("low", "medium", "high", "xhigh")}
        self.efforts = {"none": "single", "minimal": "single", **named, **self.efforts}  # type: ignore[dict-item]
        return self

    @property
    def has_keys(self) -> bool:
        """Whether requests need a key."""
        return self.api_key_file is not None or self.api_keys is not None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _File(settings_cls)


_PATHS = tuple(name for name, field in Settings.model_fields.items() if field.annotation in (Path, Path | None))
"""The settings that are paths."""
_DOTTED = re.compile(r"(?<![^,:\s])\.{1,2}/[^,]+")
"""A relative path in a setting that may name something else than one."""


class _File(TomlConfigSettingsSource):
    """The configuration file. Paths in it are relative to it, wherever the server is started."""

    def __call__(self) -> dict[str, Any]:
        values, file = super().__call__(), self.settings_cls.model_config.get("toml_file")
        if not isinstance(file, Path):
            return values
        here = file.absolute().parent
        paths = {n: here / Path(values[n]).expanduser() for n in _PATHS if isinstance(values.get(n), str)}
        named = {
            n: _DOTTED.sub(lambda found: str(here / found[0]), values[n])
            for n in ("model", "prm")
            if isinstance(values.get(n), str)
        }
        return {**values, **paths, **named}


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Reads the configuration; flags that are None count as not given.

    Raises:
        ConfigError: a key is unknown or a value is wrong; the message names every one.
    """
    if config is not None and not config.is_file():
        missing = "is no file" if config.exists() else "does not exist"
        raise ConfigError(f"the configuration file {config} {missing}")
    known = {(ENV_PREFIX + name).upper() for name in Settings.model_fields}
    for name in os.environ:
        # Settings under a nested key carry its name and two underscores.
        if name.upper().startswith(ENV_PREFIX) and name.upper().split("__")[0] not in known | {ENV_PREFIX + "CACHE"}:
            raise ConfigError(f"unknown environment variable {name}; known: {', '.join(sorted(known))}")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        return FromFile(**{key: value for key, value in flags.items() if value is not None})
    except ValidationError as error:
        raise ConfigError("; ".join(told(e) for e in error.errors())) from None
    except (TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"the configuration file {config} cannot be read: {cause(error)}") from None
    except SettingsError as error:
        found = _OF_FIELD.search(str(error))
        name = f"{ENV_PREFIX}{found[1].upper()}" if found else "the environment"
        raise ConfigError(f"{name}: it is not JSON") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


_OF_FIELD = re.compile(r'field "(\w+)"')
"""How pydantic names the setting whose variable it cannot read."""


def told(error: Any) -> str:
    """One of pydantic's errors, without the value that is wrong."""
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}; known: {', '.join(Settings.model_fields)}"
    return f"{key}: {reason(error)}" if key else reason(error)
