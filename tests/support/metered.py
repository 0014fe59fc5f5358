"""What `/metrics` says, for tests."""

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


async def samples(client: httpx.AsyncClient) -> list[Sample]:
    """Every sample; the page must be as Prometheus reads it."""
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]


async def value(client: httpx.AsyncClient, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    found = [s for s in await samples(client) if s.name == name and labels.items() <= s.labels.items()]
    return sum(sample.value for sample in found)
