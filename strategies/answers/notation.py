r"""Notation: an answer as models and data sets write it, in the LaTeX that the rest reads. Pure.

What only decorates is dropped: delimiters, spacing, a currency, a percent sign, a unit behind a number. What changes a
value is kept: a word as in `5 less` or `7 am`, the base of a numeral, a degree sign within a trigonometric function.
"""

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|max|min|gcd|lcm|det|mod|pi|infty"
    "|alpha|beta|gamma|delta|theta|lambda|omega|phi|sigma|mu"
)
_TRIGONOMETRIC = r"(?<![A-Za-z])(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])"
_DEGREE = r"(?:\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|\\degree(?![A-Za-z]))"
_COMPARED = (
    "more|less|fewer|greater|larger|smaller|bigger|higher|lower|older|younger|taller|shorter|longer|faster|slower"
    "|heavier|lighter|cheaper|earlier|later|ahead|behind|above|below|over|under|before|after|ago|increase|decrease"
    "|profit|loss|gain|deficit|surplus|debt|positive|negative|north|south|east|west|northeast|northwest|southeast"
    "|southwest|up|down|right|clockwise|counterclockwise|anticlockwise|extra|short|early|late|odd|even"
)
_OTHER = (
    "am|pm|and|or|if|plus|minus|score|when|where|unless|except|to|from|of|mod|modulo|base|squared|cubed|factorial|remainder|bc|ad|bce|ce"
    "|hundred|thousand|million|billion|trillion|dozen|dozens|hundreds|thousands|millions|billions|trillions|is|not"
    "|hal(?:f|ves)|(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth|millionth|quarter)s?"
)
_KEPT = rf"(?i:{_COMPARED}|{_OTHER}|times(?=\s+\S)|[ap]\.\s?m)\b"
"""Words behind a number that change its value, so that they are no unit."""
_ABBREVIATED = (
    r"(?:[cmk]m|[km]g|m[lL]|ft|in|yd|mi|oz|lbs?|hrs?|secs?|mins?|mph|kph|k?Hz|MHz|GHz|[KMGT]B|sq|cu|mol|k?Pa|kW|kWh"
    r"|kcal|cal|gal|deg|rad)"
)
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
_WORD = rf"(?:(?!{_KEPT})[A-Za-z]+\.?{_POWER})"
_MORE_WORDS = rf"(?:(?:\s*/\s*|\s*\\cdot\s*|\s+|-){_WORD})*+"
UNIT = (
    rf"(?:(?!\s*(?:{FUNCTIONS})\b)(?!\s*{_KEPT})"
    rf"(?:\s*{_ABBREVIATED}\b\.?{_POWER}|\s+[A-Za-z]{{3,}}\b\.?{_POWER}"
    rf"|\s+[mgsLNJWV]\b{_POWER}(?!\s*[A-Za-z\\(]){_MORE_WORDS}){_MORE_WORDS})?"
)
"""A unit behind a number, if there is one."""
_TRAILING_UNIT = re.compile(
    rf"(?P<value>[^:]*(?:\d|[}})]|\\pi)[^:]*?)(?:(?:\s+{_ABBREVIATED}|(?<=\}})(?:[ckm]m|kg)\b)(?:\s*/\s*{_WORD})?{_POWER}"
    rf"|(?:\s+(?!{_KEPT}|(?:{FUNCTIONS})\b)[A-Za-z][a-z]{{2,}})+{_POWER})\s*",
    re.DOTALL,
)
_COMPARISON = re.compile(rf"(?P<value>.*\d.*?)\s+(?:[A-Za-z]+\s+){{0,2}}(?i:{_COMPARED})(?:\s+[A-Za-z]+)*", re.DOTALL)

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿˣⁱ", "0123456789+-()nxi")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙₖ", "0123456789+-nk")
_RAISED, _LOWERED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿˣⁱ]+"), re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋ₙₖ]+")
_GREEK = {
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "ε": "epsilon",
    "θ": "theta",
    "λ": "lambda",
    "μ": "mu",
    "π": "pi",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "φ": "phi",
    "ψ": "psi",
    "ω": "omega",
}
_GREEK |= {"Δ": "Delta", "Γ": "Gamma", "Θ": "Theta", "Λ": "Lambda", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega"}
_UNICODE = str.maketrans(
    {letter: rf"\{name} " for letter, name in _GREEK.items()}
    | dict.fromkeys("€£¥₹₩₽¢₫₪\u200b\u200c\u200d\u2060\ufeff\u00ad")
    | dict.fromkeys("\u00a0\u202f\u2009\u2007\u2002\u2003\u200a\u3000", " ")
    | {"−": "-", "‐": "-", "‑": "-", "﹣": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot "}
    | {"∗": "*", "÷": r"\div ", "⁄": "/", "∕": "/", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge "}
    | {"≦": r"\le ", "≧": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in "}
    | {"±": r"\pm ", "∓": r"\mp ", "∞": r"\infty ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "°": r"^\circ "}
    | {"⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": r"\langle ", "⟩": r"\rangle "}
    | {"’": "'", "′": "'", "…": r"\ldots ", "∖": r"\setminus ", "∣": "|", "“": '"', "”": '"', "，": ", ", "：": ":"}
    | {chr(0xFEE0 + code): chr(code) for code in range(0x21, 0x7F) if chr(code) not in ",:"}
)
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[A-Za-z]|(?=[({\\]))")
_ROOTS = {"√": "", "∛": "[3]", "∜": "[4]"}

Rewriting = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]
_DIGIT_GAP = r"(?:\\[,;:! ]|~|\{,\}|\s)\s*"


def _rewritings(*pairs: tuple[str, str | Callable[[re.Match[str]], str]]) -> tuple[Rewriting, ...]:
    return tuple((re.compile(pattern, re.DOTALL), new) for pattern, new in pairs)


_CLEANING = _rewritings(
    (r"^\s*\\(?:boxed|fbox)\s*\{(.*)\}\s*$", r"\1"),
    (
        r"(?<!\d\s)(?<![\d.,/])\d{1,3}(?:" + _DIGIT_GAP + r"\d{3})++(?![\d/]|\s*/|" + _DIGIT_GAP + r"\d)",
        lambda m: _joined(m[0]),
    ),
    (r"\\(?:text)?color\s*\{[^{}]*\}\s*(?:\{([^{}]*)\})?", r"\1"),
    (r"^\s*\\(?:text|mbox)\s*\{[^{}]*(?:\b(?:is|are|equals)|[=:])\s*\}", ""),
    (r"\\\$|(?<!\\)\\[()\[\]]|\$|\\?%", ""),
    (r"(?<!\\)\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z])\.?", ""),
    (r"(?<!\\)\\!\s*", ""),
    (r"(?<=\d)(?:\\,|\{,\}\s*|~)(?=\d{3})", ","),
    (r"(?<!\\)\\(?:[,;: ]|q?quad(?![A-Za-z]))|~|\s+", " "),
    (r"(\d)\s*\^\s*\{?\s*\\circ\s*\}?\s*(?:\\(?:text|mathrm)\s*\{\s*[CFK]\s*\}|[CFK](?![A-Za-z]))", r"\1"),
    (r"^.*" + _TRIGONOMETRIC + r".*$", lambda m: _radians(m[0])),
    (r"\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})(?!\s*\d)|\\degree(?![A-Za-z]|\s*\d)", ""),
    (r"\\langle(?![A-Za-z])", "("),
    (r"\\rangle(?![A-Za-z])", ")"),
    (r"\\[lr]vert(?![A-Za-z])", "|"),
    (r"\\lbrace(?![A-Za-z])", r"\\{"),
    (r"\\rbrace(?![A-Za-z])", r"\\}"),
    (r"\\lbrack(?![A-Za-z])", "["),
    (r"\\rbrack(?![A-Za-z])", "]"),
    (r"\\(?:leq|leqslant)(?![A-Za-z])|<=", r"\\le "),
    (r"\\(?:geq|geqslant)(?![A-Za-z])|>=", r"\\ge "),
    (r"\\lt(?![A-Za-z])", "<"),
    (r"\\gt(?![A-Za-z])", ">"),
    (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
    (r"\\varnothing(?![A-Za-z])", r"\\emptyset "),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\frac\s*(?:(\w)|(\{[^{}]*\}))\s*(?:(\w)|(\{[^{}]*\}))", lambda m: _braced_fraction(*m.groups())),
    (
        r"(?<![\d.])(\d+)\.(\d*)\\(?:overline|bar|dot|overset\{\.\})\s*\{?(\d)\}?(?:(\d*)\\dot\s*\{?(\d)\}?)?(?![\d}])",
        lambda m: _repeated(*m.groups(default="")),
    ),
    (
        r"(?<![\d.])(\d+)\.(\d*)(?:\\overline\s*\{(\d+)\}|\((\d+)\))(?!\d)",
        lambda m: _repeating(m[1], m[2], m[3] or m[4]),
    ),
    (
        r"(?<![\d.])(\d+)\.(\d*?)(\d+?)(\3{2,})\d?(?:\.{3,}|\s*\\[lcd]?dots(?![A-Za-z]))",
        lambda m: _repeating(m[1], m[2], m[3]),
    ),
    (r"(\d)\.{3,}", r"\1\\ldots "),
    (
        r"^(.*[\d})].*?)(?<![_^\s])(\s*)\\(?:text|mbox|mathrm|textrm)\s*\{([^{}]*)\}(?:\s*\^\s*(?:\{\d\}|\d))?\s*\.?\s*$",
        lambda m: _united(*m.groups()),
    ),
    (r"_\s*\\text\s*\{", "_{"),
    (r"\\(?:text(?:bf|it|rm|normal)?|mbox|math(?:rm|bf|it|sf)|boldsymbol|operatorname)\s*\{([^{}]*)\}", r" \1 "),
    (
        r"^.*(?:[<>]|\\(?:le|ge|ne)(?![A-Za-z])).*$",
        lambda m: re.sub(r"\s*,?\s+(and|or)\s+", lambda w: rf" \l{w[1]} ", m[0]),
    ),
    (r"\s*,?\s+(?:and|or)\s+", ", "),
    (r"\*\*(?=[\d({])", "^"),
    (r"\s+", " "),
)
_UNREAD_SPACE = re.compile(r"(?<![A-Za-z\d])\s+|\s+(?![A-Za-z\d])")


def clean(answer: str) -> str:
    """The answer without what only decorates it, and in the LaTeX of its signs."""
    text = _scripts(_ROOT.sub(_root, answer)).translate(_UNICODE).strip(" \n\t*_`")
    for pattern, new in _CLEANING:
        text = pattern.sub(new, text)
    return text.strip(" \n\t*_`,;:").rstrip(" .,;:")


def _root(match: re.Match[str]) -> str:
    root = rf"\sqrt{_ROOTS[match[1]]}"
    return f"{root}{{{match[2]}}}" if match[2] else root


def _scripts(text: str) -> str:
    """Raised and lowered signs, and fractions of one sign, in LaTeX."""
    text = _RAISED.sub(lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{match[0].translate(_SUBSCRIPTS)}}}", text)
    return re.sub(r"[\u00bc-\u00be\u2150-\u215e\u2189]", _vulgar, text)


def _vulgar(match: re.Match[str]) -> str:
    value = Fraction(unicodedata.numeric(match[0])).limit_denominator(10)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _braced_fraction(a: str | None, braced_a: str | None, b: str | None, braced_b: str | None) -> str:
    return rf"\frac{braced_a or f'{{{a}}}'}{braced_b or f'{{{b}}}'}"


def _joined(groups: str) -> str:
    return re.sub(r"\D", "", groups)


def _radians(text: str) -> str:
    text = re.sub(rf"(\d+(?:\.\d+)?)\s*(?:{_DEGREE}|deg(?:rees?)?\b)", r"(\\frac{\1\\pi}{180})", text)
    return re.sub(_DEGREE, r"\\frac{\\pi}{180}", text)


def _repeated(whole: str, fixed: str, first: str, middle: str, last: str) -> str:
    return _repeating(whole, fixed, first + middle + last)


def _repeating(whole: str, fixed: str, period: str) -> str:
    """A decimal whose last digits repeat, as a fraction."""
    value = Fraction(
        int(f"{whole}{fixed}{period}") - int(f"{whole}{fixed}"), 10 ** len(fixed) * (10 ** len(period) - 1)
    )
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}" if value.denominator > 1 else str(value)


def _united(value: str, space: str, words: str) -> str:
    """Without the unit that a `\\text` at the end is; with its words where they are none."""
    attached = not space and words == words.strip() and re.fullmatch(r"[A-Z]", words) and words not in "NJWVLKCF"
    if attached or re.search(rf"(?<![A-Za-z])(?:{_KEPT})|\d", words):
        return f"{value}{'' if attached else ' '}{words}"
    return value


def without_unit(text: str) -> str | None:
    """What stands before a unit at the end of a clean expression; None where none stands there."""
    match = _TRAILING_UNIT.fullmatch(text)
    return match["value"].strip() if match and not _words(match["value"]) else None


def without_comparison(answer: str) -> str:
    """The number of an answer that says of what it is more or less: 5 of `5 less`."""
    match = _COMPARISON.fullmatch(clean(answer))
    return match["value"] if match else answer


def has_words(text: str) -> bool:
    """Whether a clean text is words rather than mathematics."""
    return _words(text) or text.lower() == "no" or not re.search(r"[A-Za-z\d]", text)


def _words(text: str) -> bool:
    bare = re.sub(r"\\[A-Za-z]+|_\{\w*\}", " ", text)
    long = (word for word in re.findall(r"[A-Za-z]{3,}", bare) if not re.fullmatch(FUNCTIONS, word))
    return any(long) or bool(re.search(r"(?<!\S)(?:is|it|of|or|to|if|no)\s|\s(?:is|it|of|or|to|if|no)(?!\S)", bare))


def unread(text: str) -> str:
    """The key of what cannot be read: its very text, but for spaces that say nothing."""
    return _UNREAD_SPACE.sub("", text)


def to_latex(text: str) -> str:
    """LaTeX for what was written in plain letters, sqrt(2), 2*pi, x^10, or without braces."""
    text = re.sub(r"(?<![\d.^_}{])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}", _mixed, text)
    text = re.sub(r"(?<![_^\d.])(\d+(?:\.\d+)?)\s*\(", r"\1\\cdot (", text)
    text = re.sub(r"\)\s*(?=[(\d])", r")\\cdot ", text)
    text = re.sub(rf"(?<![\\A-Za-z])({FUNCTIONS})(?![A-Za-z])", r"\\\1 ", text)
    return _braced(text.replace("*", r"\cdot "))


def _mixed(match: re.Match[str]) -> str:
    whole, top, bottom = match.groups()
    return rf"({whole}+\frac{{{top}}}{{{bottom}}})" if int(top) < int(bottom) else match[0]


_ARGUMENTS = {"\\frac": 2, "\\binom": 2, "\\sqrt": 1, "^": 1, "_": 1}
_COMMAND_OR_LETTER = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|-?\d+(?:\.\d+)?|.", re.DOTALL)


def _braced(text: str) -> str:
    """With braces around every argument."""
    made, place = [], 0
    while place < len(text):
        token = _COMMAND_OR_LETTER.findall(text[place : place + 40])[0]
        made.append(token)
        place += len(token)
        if token == r"\sqrt" and (degree := re.compile(r"\s*\[[^\[\]]*\]").match(text, place)):
            made.append(degree[0].strip())
            place = degree.end()
        for _ in range(_ARGUMENTS.get(token, 0)):
            argument, place = _argument(text, place, whole=token in {"^", "_", r"\sqrt"})
            made.append(f"{{{_braced(argument)}}}")
    return "".join(made)


def _argument(text: str, place: int, *, whole: bool) -> tuple[str, int]:
    """The argument at a place and where it ends; of digits the `whole` number, else one."""
    while place < len(text) and text[place] == " ":
        place += 1
    if place == len(text):
        return "", place
    if text[place] == "{" or (whole and text[place] == "("):
        depth = 0
        for end in range(place, len(text)):
            depth += {"{": 1, "}": -1, "(": 1, ")": -1}.get(text[end], 0)
            if depth == 0:
                return text[place + 1 : end], end + 1
        return text[place + 1 :], len(text)
    match = _TOKEN.match(text, place)
    assert match is not None
    token = match[0] if whole or not match[0].lstrip("-").replace(".", "").isdecimal() else text[place]
    end = place + len(token)
    if token == r"\sqrt":
        argument, end = _argument(text, end, whole=True)
        return rf"\sqrt{{{argument}}}", end
    return token, end
