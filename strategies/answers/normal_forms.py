r"""What is the same answer: an answer as it was written, taken apart until only single values are left. Pure.

A value is a number, a word, or an expression that `strategies.answers.symbolic` has to read. The policy, which makes
equality transitive: a percent sign, a degree sign, a currency and a unit behind a number are dropped (50 % is 50, not
0.5); `x = 5` is 5; a vector is a tuple; `(1, 2)` is the same as tuple and as open interval; a list without brackets
and a set have no order, and a set of one is its element; words and option letters ignore case and brackets.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

MAX_LENGTH = 500
"""Characters of an answer beyond which only its very text counts."""

DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d*+)?|\.\d++)"
"""A number without its sign, as it is written: 1,234.5 or .5."""

_FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|max|min|gcd|lcm|det|mod|pi|infty"
    "|alpha|beta|gamma|delta|theta|lambda|omega|phi|sigma|mu"
)
_UNIT = (
    rf"(?:(?!\s*(?:and|or|{_FUNCTIONS})\b)(?:\s*(?:cm|mm|km|kg|mg|ml|ft|in|yd|mi|oz|lbs?|hrs?|sec|am|pm|mph)\b"
    r"|\s+[A-Za-z]{3,})(?:[\s/]+[A-Za-z]++)*+(?:\s*\^\s*\{?[23]\}?)?)?"
)
_SIGNED = rf"([+-]?)\s*({DIGITS})"
_DECIMAL = re.compile(rf"{_SIGNED}{_UNIT}")
_SCIENTIFIC = re.compile(
    rf"{_SIGNED}\s*(?:(?:\\times|\\cdot|[*x])\s*10\s*\^\s*\{{?\s*|[eE])([+-]?\d{{1,3}})\s*\}}?{_UNIT}"
)
_FRACTION = re.compile(
    rf"([+-]?)\s*(\d*+)\s*\\frac\s*\{{\s*{_SIGNED}\s*\}}\s*\{{\s*{_SIGNED}\s*\}}{_UNIT}",
)
_QUOTIENT = re.compile(rf"([+-]?)\s*(?:(\d++)\s+)?()({DIGITS})\s*/\s*()({DIGITS}){_UNIT}")

_LITERALS = re.compile(r"(\d++)_\{?(\d++)\}?|(\d++)\s*:\s*(\d++)")
"""A number with its base, and a ratio or a time of day."""
_OPTION = re.compile(r"\(([A-H])\)\s+\S.*|([A-H])[).:]\s+\S.*|([A-Za-z])")
_ASSIGNED = re.compile(
    r"(?:\([A-Za-z](?:\s*,\s*[A-Za-z])+\)|(?:[A-Za-z]|[A-Z]{2,}|[A-Za-z]{4,}|\\[a-z]+)(?:_(?:\{\w+\}|\w))?(?:\([^()]*\))?)"
    r"\s*(?:=|\\in(?![a-z]))\s*(?P<value>[^=<>]+)"
)
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)
_BRACKET = re.compile(r"\\[{}]|\\[A-Za-z]+|\\.|[()\[\]{},;]", re.DOTALL)

_UNICODE = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "≤": r"\le "}
    | {"≥": r"\ge ", "∪": r"\cup ", "∈": r"\in ", "±": r"\pm ", "²": "^2", "³": "^3", "½": r"\frac{1}{2}"}
    | {"°": "", "€": "", "£": "", "¥": "", "\u00a0": " ", "\u202f": " ", "’": "'"}
)
_CLEANING: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), new)
    for pattern, new in (
        (r"^\s*\\(?:boxed|fbox)\s*\{(.*)\}\s*$", r"\1"),
        (r"\\\$|(?<!\\)\\[()\[\]]|\$|\\?%", ""),
        (r"(?<!\\)\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z])", ""),
        (r"(?<!\\)\\!\s*", ""),
        (r"(?<=\d)(?:\\,|\{,\}\s*|~)(?=\d{3})", ","),
        (r"(?<!\\)\\(?:[,;: ]|q?quad(?![A-Za-z]))|~|\s+", " "),
        (
            r"(\\(?:sin|cos|tan|cot|sec|csc)\s*)[({]?\s*([\d.]+)\s*\^\s*\{?\s*\\circ\s*\}?[)}]?",
            r"\1{(\\frac{\2\\pi}{180})}",
        ),
        (r"\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|\\degree", ""),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(?:(\w)|(\{[^{}]*\}))\s*(?:(\w)|(\{[^{}]*\}))", lambda m: _braced_fraction(*m.groups())),
        (r"^(.*\d.*?)\s*\\(?:text|mbox|mathrm|textrm)\s*\{[^{}]*\}(?:\s*\^\s*\{?\d\}?)?\s*\.?\s*$", r"\1"),
        (r"\\(?:text(?:bf|it|rm)?|mbox|math(?:rm|bf|it)|boldsymbol|operatorname)\s*\{([^{}]*)\}", r" \1 "),
        (r"[\s,]+(?:and|or)\s+", ", "),
        (r"\*\*(?=[\d({])", "^"),
        (r"\s+", " "),
    )
)


def _braced_fraction(a: str | None, braced_a: str | None, b: str | None, braced_b: str | None) -> str:
    return rf"\frac{braced_a or f'{{{a}}}'}{braced_b or f'{{{b}}}'}"


def clean(answer: str) -> str:
    """The answer without what only decorates it: delimiters, spacing, currency, percent, trailing punctuation."""
    text = answer.translate(_UNICODE).strip(" \n\t*_`")
    for pattern, new in _CLEANING:
        text = pattern.sub(new, text)
    return text.strip(" \n\t*_`,;:").rstrip(" .,;:")


def decimal(answer: str) -> str | None:
    """The plain digits of an answer that is one integer or decimal, with its percent sign but without its unit."""
    match = _DECIMAL.fullmatch(clean(answer))
    if not match:
        return None
    digits = match[2].replace(",", "").rstrip(".")
    return f"{match[1].strip('+')}{digits}{'%' if '%' in answer else ''}"


def number(text: str) -> Fraction | None:
    """The rational number that a clean text writes, if it writes one."""
    if match := _DECIMAL.fullmatch(text):
        sign, digits = match.groups()
        return _rational(sign, digits)
    if match := _SCIENTIFIC.fullmatch(text):
        sign, digits, exponent = match.groups()
        return _rational(sign, digits) * Fraction(10) ** int(exponent)
    if match := _FRACTION.fullmatch(text) or _QUOTIENT.fullmatch(text):
        sign, whole, top_sign, top, bottom_sign, bottom = match.groups()
        divisor = _rational(bottom_sign, bottom)
        if divisor:
            value = int(whole or 0) + _rational(top_sign, top) / divisor
            return -value if sign == "-" else value
    return None


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

    kind: Literal["sequence", "set", "union", "rows"]
    parts: tuple["Form", ...]
    brackets: str = "()"

    def render(self, keys: list[str]) -> str:
        if self.kind == "rows":
            return "|".join(keys)
        if self.kind == "sequence":
            return f"{self.brackets[0]}{';'.join(keys)}{self.brackets[1]}"
        parts = sorted(set(keys))
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
    return (read[form.key] or form.key.lower()) if form.symbolic else form.key


@lru_cache(4096)
def parse(answer: str) -> Form:
    """The form of an answer; kept, because most answers of a vote are the same."""
    if len(answer) > MAX_LENGTH:
        return Value(_words(answer))
    return _form(clean(answer))


def _form(text: str) -> Form:
    text = text.strip()
    if (value := number(text)) is not None:
        return Value(str(value))
    if match := _LITERALS.fullmatch(text):
        return Value("_".join(filter(None, match.groups()[:2])) or ":".join(match.groups()[2:]))
    if match := _ASSIGNED.fullmatch(text):
        return _form(match["value"])
    if match := _MATRIX.fullmatch(text):
        return _matrix(match[2])
    if len(union := _split(text, r"\cup")) > 1:
        return Group("union", tuple(map(_form, union)))
    if len(items := _split(text, ",", ";")) > 1 or r"\pm" in text:
        return Group("set", tuple(_form(choice) for item in items for choice in _signs(item)))
    if inner := _bracketed(text):
        return _bracket(text, inner)
    return _value(text)


def _matrix(body: str) -> Form:
    rows = [[_form(cell) for cell in row.split("&")] for row in re.split(r"\\\\(?:\[[^\]]*\])?", body) if row.strip()]
    if len(rows) == 1 or all(len(row) == 1 for row in rows):
        return Group("sequence", tuple(cell for row in rows for cell in row))
    return Group("rows", tuple(Group("sequence", tuple(row)) for row in rows))


def _bracket(text: str, inner: str) -> Form:
    items = _split(inner, ",", ";")
    if text.startswith("\\"):
        return Group("set", tuple(_form(choice) for item in items for choice in _signs(item)))
    if len(items) == 1 and text[0] == "(":
        return _form(inner)
    return Group("sequence", tuple(map(_form, items)), text[0] + text[-1])


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
            encloses = token.end() == len(text) and _step(token[0]) < 0 and text[0] != "{"
            return text[opened : token.start()] if encloses else None
    return None


def _step(token: str) -> int:
    return (token in {"(", "[", "{", r"\{"}) - (token in {")", "]", "}", r"\}"})


def _value(text: str) -> Value:
    if match := _OPTION.fullmatch(text):
        return Value(str(match[match.lastindex or 0]).lower())
    if has_words(text):
        return Value(_words(text))
    return Value(to_latex(text), symbolic=True)


def has_words(text: str) -> bool:
    """Whether a clean text is words rather than mathematics."""
    bare = re.sub(r"\\[A-Za-z]+", " ", text)
    words = [word for word in re.findall(r"[A-Za-z]{3,}", bare) if not re.fullmatch(_FUNCTIONS, word)]
    return bool(words) or text.lower() == "no" or not re.search(r"[A-Za-z\d]", text)


def _words(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .,;:!?\"'")


def to_latex(text: str) -> str:
    """LaTeX for what was written in plain letters: sqrt(2), 2*pi, x^10."""
    text = re.sub(r"\^\s*(-?\d{2,}|-\d)", r"^{\1}", text)
    text = re.sub(r"\^\s*\(([^()]*)\)", r"^{\1}", text)
    text = re.sub(rf"(?<![\\A-Za-z])({_FUNCTIONS})(?![A-Za-z])", r"\\\1 ", text)
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    return text.replace("*", r"\cdot ")
