"""Whether spans are wanted, and where they go, as OpenTelemetry's own environment variables say it.

Off unless one of `OTEL_TRACES_EXPORTER`, `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set.
Samplers, headers, limits and the like are read by OpenTelemetry itself. Nothing of it is imported while it is off.
"""

import os
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from tts_server import __version__
from tts_server.config import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from tts_server.observe.otel.spans import Tracing

_GROUP = "opentelemetry_traces_exporter"
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_EXTRA = "install the extra, in a checkout by pip install '.[otel]', or turn tracing off with OTEL_SDK_DISABLED=true"


def wanted(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The names of the exporters; none where nothing is to be traced."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    has_place = any(environment.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT") for name in ("", "TRACES_"))
    said = environment.get("OTEL_TRACES_EXPORTER") or ("otlp" if has_place else "")
    return [name for each in said.split(",") if (name := each.strip()) and name != "none"]


def from_environment() -> "Tracing | None":
    """What makes spans, or nothing where none are wanted.

    Raises:
        ConfigError: OpenTelemetry, or an exporter, is not installed.
    """
    names = wanted()
    if not names:
        return None
    try:
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        from tts_server.observe.otel.spans import Tracing  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"OTEL_… variables ask for traces, but OpenTelemetry is not installed: {_EXTRA}") from error
    provider = TracerProvider(resource=_resource())
    for name in names:
        provider.add_span_processor(BatchSpanProcessor(_exporter(name).load()()))
    return Tracing(provider)


def _resource() -> "Resource":
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource  # noqa: PLC0415

    said = {} if SERVICE_NAME in OTELResourceDetector().detect().attributes else {SERVICE_NAME: "tts-server"}
    return Resource.create({**said, SERVICE_VERSION: __version__})


def _exporter(name: str) -> EntryPoint:
    protocol = ""
    if name == "otlp":
        protocols = [os.environ.get(f"OTEL_EXPORTER_OTLP_{kind}PROTOCOL") for kind in ("TRACES_", "")]
        protocol = next(filter(None, protocols), "http/protobuf")
        if protocol not in _OTLP:
            raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is none of {', '.join(_OTLP)}")
    found = list(entry_points(group=_GROUP, name=_OTLP.get(protocol, name)))
    if not found:
        known = ", ".join(sorted({point.name for point in entry_points(group=_GROUP)})) or "none"
        what = f"the exporter {name!r}" + (f" for {protocol}" if protocol else "")
        raise ConfigError(f"OTEL_TRACES_EXPORTER: {what} is not installed; there is: {known}; {_EXTRA}")
    return found[0]
