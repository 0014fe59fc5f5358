"""What libraries say of an error, in words for somebody who does not know Python."""

import re
from collections.abc import Mapping
from typing import Any

_OBJECT, _LIST = "Input should be an object", "Input should be a list"
_WORDS = {
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dict_type": _OBJECT,
    "mapping_type": _OBJECT,
    "dataclass_type": _OBJECT,
    "dataclass_exact_type": _OBJECT,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "path_type": "Input should be a path",
    "none_required": "Input should be null",
    "unexpected_keyword_argument": "There is no such key",
}


def reason(error: Mapping[str, Any]) -> str:
    """What one of the errors of a pydantic `ValidationError` says, without its place."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "union_tag_not_found":
        return f"{context['discriminator']} is required"
    if kind == "union_tag_invalid":
        return f"{context['discriminator']} should be {context['expected_tags']}, got {context['tag']!r}"
    return _WORDS.get(kind) or str(error["msg"]).removeprefix("Value error, ")


def sentence(error: BaseException) -> str:
    """What went wrong, in one line and without Python's numbers and quotes; a file's error names the file."""
    match error:
        case OSError(filename=name) if name:
            return f"{name}: {cause(error)}"
    return cause(error)


def cause(error: BaseException) -> str:
    """The same, where the file is named already."""
    match error:
        case OSError(strerror=str(why)):
            return why
        case UnicodeDecodeError():
            return "it is not text in UTF-8"
        case KeyError(args=(str(key),)) if key.isidentifier():
            return f"{key} is missing"
        case TypeError() if found := _UNEXPECTED.search(str(error)):
            return f"there is no argument {found[1]!r}"
    return " ".join(map(str.strip, str(error).splitlines()))


_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
