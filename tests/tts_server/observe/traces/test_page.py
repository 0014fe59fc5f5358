"""docs/traces.md shows traces as they are."""

import re
from pathlib import Path
from typing import Any, get_args

import orjson
from tracing import record_of

from tts_server.config import Settings
from tts_server.observe.traces import view
from tts_server.observe.traces.render import row

PAGE = (Path(__file__).parents[4] / "docs" / "traces.md").read_text()


def shortened(example: Any, whole: Any) -> bool:
    """Whether an example has only what the whole has, in the same order, and leaves out of lists and options alone."""
    if isinstance(example, dict) and isinstance(whole, dict):
        known = {name: part for name, part in example.items() if name != "…"}
        order = [name for name in whole if name in known]
        return not whole or (list(known) == order and all(shortened(part, whole[name]) for name, part in known.items()))
    if isinstance(example, list) and isinstance(whole, list):
        return not whole or all(shortened(part, whole[0]) for part in example)
    return (
        isinstance(example, type(whole))
        or example is None
        or whole is None
        or {*map(type, (example, whole))} <= {int, float}
    )


def test_the_example_is_a_trace() -> None:
    stored = row(record_of("beam_search", n=4, beam_width=2), "redacted")
    whole = view.shown(stored.head.decode(), stored.body)
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    parsed = orjson.loads(example)
    assert list(parsed) == list(whole)
    assert shortened(parsed, whole)


def test_every_state_and_every_setting_is_on_the_page() -> None:
    for name in (*get_args(view.State), *(name for name in Settings.model_fields if name.startswith("traces"))):
        assert f"| `{name}` |" in PAGE
