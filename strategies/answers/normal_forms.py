r"""What is the same answer: an answer as it was written, taken apart until only single values are left. Pure.

A value is a number, a word, or an expression that `strategies.answers.symbolic` has to read. The policy, which makes
equality transitive: a percent sign, a degree sign, a currency and a unit behind a number are dropped (50 % is 50, not
0.5); `x = 5` is 5; a vector is a tuple; `(1, 2)` is the same as tuple and as open interval; a list without brackets
and a set have no order, and a set of one is its element; several variables with a value each are a tuple in the order
of their names where these follow one another in the alphabet, and keep their names where they do not; words and option
letters ignore case and brackets. What cannot be read keeps its text as its key.
"""

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from strategies.answers.notation import UNIT, clean, has_words, to_latex, unread, without_unit

__all__ = ["DIGITS", "MAX_LENGTH", "Form", "Group", "Value", "clean", "decimal", "has_words", "number", "parse"]
__all__ += ["render", "symbolic_values", "to_latex"]

MAX_LENGTH = 500
"""Characters of an answer beyond which only its very text counts."""

DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d*+)?|\.\d++)"
"""A number without its sign, as it is written: 1,234.5 or .5."""

_SIGNED = rf"([+-]?)\s*({DIGITS})"
_DECIMAL = re.compile(rf"{_SIGNED}{UNIT}")
_MAGNITUDE = re.compile(
    rf"{_SIGNED}\s*((?:(?:hundred|thousand|million|billion|trillion|dozen)s?\s*)+){UNIT}", re.IGNORECASE
)
_MAGNITUDES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_SCIENTIFIC = re.compile(
    rf"{_SIGNED}\s*(?:(?:\\times|\\cdot|[*x])\s*10\s*\^\s*\{{?\s*|[eE])([+-]?\d{{1,3}})\s*\}}?{UNIT}"
)
_FRACTION = re.compile(
    rf"([+-]?)\s*(\d*+)\s*\\frac\s*\{{\s*{_SIGNED}\s*\}}\s*\{{\s*{_SIGNED}\s*\}}{UNIT}",
)
_QUOTIENT = re.compile(rf"([+-]?)\s*(?:(\d++)\s+)?()({DIGITS})\s*/\s*()({DIGITS}){UNIT}")
_SIGN_WORD = re.compile(r"(?:negative|minus)\s+(?=[\d.\\])", re.IGNORECASE)

_RATIO = re.compile(r"\d+(?:\s*:\s*\d+)+")
_TIME = re.compile(r"(\d{1,2})(?::(\d\d))?\s*([ap])\.?\s?m\.?", re.IGNORECASE)
_BASED = re.compile(
    r"(?:(?P<bracket>\()\s*)?(?P<digits>\d[\dA-Z]*|[A-Z][\dA-Z]+)\s*(?(bracket)\))"
    r"\s*(?:_\s*\{?\s*|\s+(?:in\s+)?base\s+)(?P<base>\d+|[a-z]+)\s*\}?",
)
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASES |= {"eleven": 11, "twelve": 12, "sixteen": 16}
_OPTION = re.compile(r"\(([A-H])\)\s+\S.*|([A-H])[).:]\s+\S.*|([A-Za-z])")
_NAME = (
    r"(?:\([A-Za-z](?:\s*,\s*[A-Za-z])+\)"
    r"|(?:m\s*)?\\angle\s*[A-Z]{1,3}|\|?\\(?:vec|overline|overrightarrow|hat|bar|mathbf)\s*\{[A-Za-z]{1,2}\}\|?"
    r"|\|[A-Z]{2}\||\\frac\{d[a-z]?\}\{d[a-z]\}|(?:[A-Za-z]|[A-Z]{2,}|[A-Za-z]{4,}|\\[a-z]+)(?:_(?:\{\w+\}|\w))?"
    r"(?:'*|\^\s*\{?-1\}?(?=\())(?:\([^()]*\))?)"
)
_ASSIGNED = re.compile(rf"(?P<name>{_NAME})\s*(?:=|\\in(?![a-z])|\\approx(?![a-z]))\s*(?P<value>[^=<>]+)")
_APPROXIMATE = re.compile(r"(?P<exact>[^=<>]*?)\s*\\approx(?![a-z])\s*(?P<rounded>[^=<>]+)")
_BUILDER = re.compile(
    r"\s*[A-Za-z]\s*(?:\\in\s*\\mathbb\s*\{R\}\s*)?(?::|\\mid(?![a-z])|\|)\s*(?P<condition>.*)", re.DOTALL
)
_MATRIX = re.compile(r"\\begin\{((?:[pbB]|small)?matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)
_INTERVAL = re.compile(r"([\[\]])([^()\[\],;]+[,;][^()\[\],;]+)([\[\]])")
_BRACKET = re.compile(r"\\[{}]|\\[A-Za-z]+|\\.|[()\[\]{},;]", re.DOTALL)

_COMMAND = re.compile(
    r"\\(?!(?:frac|sqrt|cdot|times|div|pi|infty|[lr]floor|[lr]ceil|binom|sum|prod|int|lim|to|le|ge|ne|cup|cap|setminus"
    r"|mathbb|emptyset|land|lor|max|min|gcd|lcm|mod|operatorname|(?:arc)?(?:sin|cos|tan)|cot|sec|csc|sinh|cosh|tanh|log|ln"
    r"|exp|alpha|beta|[gG]amma|[dD]elta|(?:var)?epsilon|zeta|eta|[tT]heta|iota|kappa|[lL]ambda|mu|nu|[xX]i|Pi|rho|[sS]igma"
    r"|tau|(?:var)?phi|Phi|chi|[pP]si|[oO]mega|ell|vec|hat|bar|overline|in)(?![A-Za-z]))[A-Za-z]"
)
r"""What the parser does not know, but takes for a variable. `\pm` is resolved before."""
_STRANGE = re.compile(
    r"[^ -~]|[?@#&\"'`;:~$%]|\\[^A-Za-z{}]|(?<![_\d])\d+\s+\.?\d|\d\.\d+\.|\.\.|[})\d]_|\d\s*\\?mod"
    r"|/\s*(?:\d+|[A-Za-z])\s*(?=[A-Za-z(]|\\(?:pi|sqrt|frac))"
)
"""What the parser drops or guesses: signs, numbers side by side, factors behind a slash."""


def decimal(answer: str) -> str | None:
    """The plain digits of an answer that is one integer or decimal, with its percent sign but without its unit."""
    match = _DECIMAL.fullmatch(clean(answer))
    if not match:
        return None
    digits = match[2].replace(",", "").rstrip(".")
    return f"{match[1].strip('+')}{digits}{'%' if '%' in answer else ''}"


def number(text: str) -> Fraction | None:
    """The rational number that a clean text writes, if it writes one."""
    if (match := _DECIMAL.fullmatch(text)) and not _is_list(match[2]):
        sign, digits = match.groups()
        return _rational(sign, digits)
    if match := _MAGNITUDE.fullmatch(text):
        sign, digits, words = match.groups()
        value = _rational(sign, digits)
        for word in words.lower().split():
            value *= _MAGNITUDES[word.removesuffix("s")]
        return value
    if match := _SCIENTIFIC.fullmatch(text):
        sign, digits, exponent = match.groups()
        return _rational(sign, digits) * Fraction(10) ** int(exponent)
    if match := _FRACTION.fullmatch(text) or _QUOTIENT.fullmatch(text):
        sign, whole, top_sign, top, bottom_sign, bottom = match.groups()
        divisor = _rational(bottom_sign, bottom)
        if divisor and not (whole and top.startswith("0")):
            value = int(whole or 0) + _rational(top_sign, top) / divisor
            return -value if sign == "-" else value
    return None


def _is_list(digits: str) -> bool:
    """Whether groups of three digits are three or more round numbers, 100,200,300, rather than a single one."""
    groups = digits.split(",")
    return len(groups) > 2 and len(groups[0]) == 3 and all(group[-1] == "0" and group != "000" for group in groups)


def _rational(sign: str, digits: str) -> Fraction:
    return Fraction(f"{sign}{digits.replace(',', '').rstrip('.')}")


@dataclass(frozen=True, slots=True)
class Value:
    """A single value: its key, or the LaTeX that has yet to be read."""

    key: str
    symbolic: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Values that belong together."""

    kind: Literal["sequence", "list", "set", "union", "rows", "assigned"]
    parts: tuple["Form", ...]
    brackets: str = "()"

    def render(self, keys: list[str]) -> str:
        if self.kind == "rows":
            return "|".join(keys)
        if self.kind == "assigned":
            return "=".join(keys)
        if self.kind == "sequence":
            return f"{self.brackets[0]}{';'.join(keys)}{self.brackets[1]}"
        parts = sorted(keys if self.kind == "list" else set(keys))
        if self.kind == "union":
            return "∪".join(parts)
        return parts[0] if len(parts) == 1 else f"{{{';'.join(parts)}}}"


Form = Value | Group


def symbolic_values(form: Form) -> Iterator[str]:
    """The LaTeX of every value that has yet to be read."""
    if isinstance(form, Group):
        for part in form.parts:
            yield from symbolic_values(part)
    elif form.symbolic:
        yield form.key


def render(form: Form, read: Mapping[str, str | None]) -> str:
    """The canonical key, given the keys of the values that had to be read; what has none is its own text."""
    if isinstance(form, Group):
        return form.render([render(part, read) for part in form.parts])
    return (read[form.key] or unread(form.key)) if form.symbolic else form.key


@lru_cache(4096)
def parse(answer: str) -> Form:
    """The form of an answer; kept, because most answers of a vote are the same."""
    if len(answer) > MAX_LENGTH:
        return Value(_words(answer))
    return _form(_INTERVAL.sub(_interval, clean(answer)))


def _interval(match: re.Match[str]) -> str:
    """With round brackets for open ends, which some write as square ones that are turned outwards."""
    left, ends, right = match.groups()
    return f"{'(' if left == ']' else left}{ends}{')' if right == '[' else right}"


def _form(text: str) -> Form:
    text = _SIGN_WORD.sub("-", text.strip())
    if (value := number(text)) is not None:
        return Value(str(value))
    if literal := _literal(text):
        return Value(literal)
    if match := _ASSIGNED.fullmatch(text):
        return _assigned(match["name"], match["value"])
    if match := _APPROXIMATE.fullmatch(text):
        return _form(match["exact"] or match["rounded"])
    if match := _MATRIX.fullmatch(text):
        return _matrix(match[2])
    if len(union := _split(text, r"\cup")) > 1:
        return Group("union", tuple(map(_form, union)))
    if len(items := _split(text, ",", ";")) > 1 or r"\pm" in text:
        return _list(items)
    if inner := _bracketed(text):
        return _bracket(text, inner)
    return _value(text)


def _literal(text: str) -> str | None:
    """The key of a ratio, a time of day, a numeral in another base, or the empty set."""
    if _RATIO.fullmatch(text):
        return re.sub(r"\s", "", text)
    if match := _TIME.fullmatch(text):
        return f"{int(match[1])}:{match[2] or '00'} {match[3].lower()}m"
    if match := _BASED.fullmatch(text):
        base = int(match["base"]) if match["base"].isdecimal() else _BASES.get(match["base"], 0)
        digits = match["digits"].lstrip("0") or "0"
        if 2 <= base <= 36 and all(int(digit, 36) < base for digit in digits):
            return digits if base == 10 else f"{digits}_{base}"
    return "∅" if re.fullmatch(r"\\emptyset|\\\{\s*\\\}", text) else None


def _assigned(name: str, value: str) -> Form:
    """The value that a name is given; of several names, each with its own if the two lists match."""
    if not name.startswith("("):
        return _form(value)
    names = re.findall(r"[A-Za-z]", name)
    inner = _bracketed(value.strip())
    values = _split(inner, ",") if inner else []
    if names == sorted(names) or len(values) != len(names):
        return _form(value)
    return _assignments(list(zip(names, values, strict=True)))


def _list(items: Sequence[str]) -> Form:
    """Items without brackets, in any order; but several names with a value each."""
    named = [
        (match["name"], match["value"]) if (match := _ASSIGNED.fullmatch(item.strip())) else None for item in items
    ]
    names = {re.sub(r"\s", "", pair[0]) for pair in named if pair}
    if len(names) > 1:
        if all(named):
            return _assignments([(re.sub(r"\s", "", pair[0]), pair[1]) for pair in named if pair])
        return Group(
            "sequence",
            tuple(_form(item) if not pair else _pair(*pair) for item, pair in zip(items, named, strict=True)),
        )
    if len(_units(items)) > 1:
        return Group("list", tuple(Value(_words(item)) for item in items))
    # A value that is there twice counts twice, but two notations of one value are that value.
    repeats = len({item.strip() for item in items}) < len(items)
    return Group("list" if repeats else "set", tuple(_form(choice) for item in items for choice in _signs(item)))


def _units(items: Sequence[str]) -> set[str]:
    """What numbers count, singular or plural: of several things, each belongs to its number."""
    counted = (match for item in items if (match := _DECIMAL.fullmatch(item.strip())))
    return {unit.removesuffix("s") for match in counted if (unit := match.string[match.end(2) :].strip())}


def _assignments(pairs: list[tuple[str, str]]) -> Form:
    pairs.sort(key=lambda pair: pair[0])
    if "".join(name for name, _ in pairs) in string.ascii_letters:
        return Group("sequence", tuple(_form(value) for _, value in pairs))
    return Group("list", tuple(_pair(*pair) for pair in pairs))


def _pair(name: str, value: str) -> Form:
    return Group("assigned", (Value(name), _form(value)))


def _matrix(body: str) -> Form:
    rows = [[_form(cell) for cell in row.split("&")] for row in re.split(r"\\\\(?:\[[^\]]*\])?", body) if row.strip()]
    if len(rows) == 1 or all(len(row) == 1 for row in rows):
        return Group("sequence", tuple(cell for row in rows for cell in row))
    return Group("rows", tuple(Group("sequence", tuple(row)) for row in rows))


def _bracket(text: str, inner: str) -> Form:
    if _MATRIX.fullmatch(inner.strip()):
        return _form(inner)
    items = _split(inner, ",", ";")
    if text[0] in "\\{":
        if match := _BUILDER.fullmatch(inner):
            return _form(match["condition"])
        return Group("set", tuple(_form(choice) for item in items for choice in _signs(item)))
    if len(items) == 1 and text[0] == "(" and text[-1] == ")":
        return _form(inner)
    forms = tuple(map(_form, items))
    if text[0] == "[" and len(items) > 1 and all(_is_row(form, forms[0]) for form in forms):
        return Group("rows", tuple(Group("sequence", form.parts) for form in forms if isinstance(form, Group)))
    return Group("sequence", forms, text[0] + text[-1])


def _is_row(form: Form, first: Form) -> bool:
    return (
        isinstance(form, Group)
        and isinstance(first, Group)
        and (form.kind, form.brackets, len(form.parts)) == ("sequence", "[]", len(first.parts))
    )


def _signs(text: str) -> tuple[str, ...]:
    if r"\pm" not in text:
        return (text,)
    plus, minus = text.replace(r"\pm", "+").replace(r"\mp", "-"), text.replace(r"\pm", "-").replace(r"\mp", "+")
    return plus.strip().removeprefix("+"), minus


def _split(text: str, *separators: str) -> list[str]:
    """The parts between separators that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for token in _BRACKET.finditer(text):
        if token[0] in separators and depth == 0:
            parts.append(text[start : token.start()])
            start = token.end()
        depth += _step(token[0])
    return [*parts, text[start:]]


def _bracketed(text: str) -> str | None:
    """What stands in the pair of brackets that encloses the whole text."""
    depth = 0
    for token in _BRACKET.finditer(text):
        if depth == 0 and token.start() > 0:
            return None
        depth += _step(token[0])
        if depth == 0:
            opened = 2 if text[0] == "\\" else 1
            encloses = token.end() == len(text) and _step(token[0]) < 0
            return text[opened : token.start()] if encloses else None
    return None


def _step(token: str) -> int:
    return (token in {"(", "[", "{", r"\{"}) - (token in {")", "]", "}", r"\}"})


def _value(text: str) -> Form:
    if match := _OPTION.fullmatch(text):
        return Value(str(match[match.lastindex or 0]).lower())
    if (bare := without_unit(text)) is not None:
        return _form(bare)
    if has_words(text):
        return Value(_words(text))
    if _STRANGE.search(text) or _COMMAND.search(text) or text.count("{") != text.count("}"):
        return Value(unread(text))
    return Value(to_latex(text), symbolic=True)


def _words(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .,;:!?\"'")
