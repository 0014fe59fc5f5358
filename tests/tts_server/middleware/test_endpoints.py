import pytest

from tts_server.middleware.endpoints import Endpoints
from tts_server.routes import routes

SERVED = Endpoints(routes())


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/files", "/v1/files"),
        ("/v1/files/file-1", "/v1/files/{file_id}"),
        ("/v1/files/file-1/content", "/v1/files/{file_id}/content"),
        ("/v1/models/org/name@single", "/v1/models/{id:path}"),
        ("/v1/nothing", None),
        ("/v1/files/{file_id}/x", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_a_path_is_named_as_its_route_names_it(path: str, endpoint: str | None, method: str) -> None:
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
    assert SERVED.of(scope) == endpoint
    assert "path_params" not in scope


def test_every_router_s_paths_are_known() -> None:
    assert {"/v1/responses", "/v1/batches", "/v1/traces/{id}", "/health", "/metrics"} <= set(SERVED.paths)
