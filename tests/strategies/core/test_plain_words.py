"""What is said of a wrong value is in words of JSON."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from strategies.core.plain_words import cause, reason, sentence

PYTHON = re.compile(r"dict|tuple|\bset\b|instance|None|Error|error|tag|keyword|argument|attribute|dataclass|model")
VALUES: list[Any] = [None, True, 5, 0.5, "x", [], [1], {}, {"nosuch": 1}, {"kind": "c"}, {"kind": "a", "count": -1}]


class First(BaseModel):
    kind: Literal["a"]
    count: int = Field(ge=0)


class Second(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["b"]
    even: int = 0

    @field_validator("even")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("it is even")
        return value


@dataclass(config=ConfigDict(extra="forbid"))
class Third:
    name: str


@pytest.mark.parametrize(
    "kind",
    [
        First,
        Second,
        Third,
        dict[str, int],
        list[int],
        tuple[int, ...],
        set[int],
        None,
        Annotated[First | Second, Field(discriminator="kind")],
    ],
    ids=str,
)
def test_no_reason_needs_python_to_be_understood(kind: Any) -> None:
    adapter = TypeAdapter(kind)
    refused = 0
    for value in [*VALUES, {"kind": "b", "even": 1}]:
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            refused += 1
            for each in error.errors():
                assert not PYTHON.search(reason(each)), (value, reason(each))
    assert refused


def test_what_is_needed_is_named() -> None:
    adapter = TypeAdapter(Annotated[First | Second, Field(discriminator="kind")])
    said = []
    for value in ({}, {"kind": "c"}, {"kind": "b", "even": 1}, 5):
        with pytest.raises(ValidationError) as caught:
            adapter.validate_python(value)
        said.append(reason(caught.value.errors()[0]))
    assert said == [
        "'kind' is required",
        "'kind' should be 'a', 'b', got 'c'",
        "it is even",
        "Input should be an object",
    ]


def failure(work: Callable[[], object]) -> Exception:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


def test_what_fails_below_is_told_without_numbers_and_quotes_of_python(tmp_path: Path) -> None:
    missing = failure((tmp_path / "missing").read_text)
    assert sentence(missing) == f"{tmp_path / 'missing'}: No such file or directory"
    assert cause(missing) == "No such file or directory"
    assert cause(failure(lambda: {}["peft_type"])) == "peft_type is missing"
    assert cause(failure(b"\xff".decode)) == "it is not text in UTF-8"
    assert cause(failure(lambda: failure(colour=1))) == "there is no argument 'colour'"  # type: ignore[call-arg]
    assert sentence(ValueError("one\n  and two")) == "one and two"
    assert sentence(OSError("in words")) == "in words"
