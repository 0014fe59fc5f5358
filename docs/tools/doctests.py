"""Sets the doctests of docstrings as code on the documentation site (mkdocs.yml names this file under `extensions`)."""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)(>>> .*(?:\n(?! *$).*)*)", re.MULTILINE)


class DoctestFences(griffe.Extension):
    """Puts a fence around every example that begins with `>>>`."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub(r"\1```pycon\n\1\2\n\1```", obj.docstring.value)
