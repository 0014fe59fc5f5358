r"""What a solution says its answer is: a box, a marker that names it, or the last value. docs/grading.md has the rules.

A value is read whole: as far as digits, signs, fractions, powers and roots belong together. What cannot be read whole
keeps its text.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from strategies.answers.normal_forms import MAX_LENGTH, clean, decimal, has_words
from strategies.answers.think_tags import split

_BRACES = re.compile(r"(\\{1,3}(?:boxed|fbox)\s*+\{)|\\.|[{}]", re.DOTALL)
_OPEN_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s*+\{(?!\s*+\})|\s++(?!\{)|(?=\d))([^\n$]++)")
_NAME = re.compile(r"([A-Za-z](?:_\w+|_\{\w+\})?)\s*=\s*\Z")
_BETWEEN = re.compile(r"\s*(?:[,;]|,?\s*(?:and|or))\s*(?:[A-Za-z](?:_\w+|_\{\w+\})?\s*=\s*)?")
_SPACING = re.compile(r"\\(?:text|mbox|q?quad|[()\[\],;! ])|[${}\s]")
"""What may stand between two boxes of one answer beside a comma, `and` or `or`."""
_BOXES_APART = 80
"""Characters between two boxes of one answer, at most."""
_NAME_LENGTH = 20
"""Characters of a box's name, at most."""

_WORD = r"answers?|ans|antwort|réponse|respuesta|resposta|risposta|ответ"
_SIGN_WORD = "答案|答え|정답|الجواب|الإجابة|उत्तर"
_IS = r"\b(?:is|are|was|be|ist|est|es|é|è|هو|هي)\b"
_MARKER = re.compile(
    r"^\#{4}[ \t]*+(?:(?=[-+$\\(.\d])(?!\(?\w++[.)][ \t]++\S)|(?=\S++\s*+\Z))"
    r"|<answer>\s*+"
    r"|\b(?:options?|choices?)\s+(?:is|are)[:*_\s]{0,8}(?=\(?(?-i:[A-J])\b(?!\s(?!and\b|or\b)\w))"
    r"|\b(?:options?|choices?)\b(?:(?!\bnot\b)[^.?!:\n]){0,80}\b(?:is|are|be)[:*_\s]{0,8}(?:option\s|choice\s)?(?=\((?-i:[A-J])\))"
    rf"|^[#*_ \t]*+(?:final\s)?(?:{_WORD})[*_: \t]*+\n\s*+"
    rf"|(?:\b(?:{_WORD})\b|{_SIGN_WORD})[*_\s]{{0,4}}(?:(?!{_IS})[^.?!:：=是为為は은는\n]){{0,60}}"
    rf"(?:{_IS}|[:：=是为為は은는])[:：*_\s]{{0,8}}",
    re.IGNORECASE | re.MULTILINE,
)
_MARKERS_TRIED = 4
_REACH = 1000
"""Characters behind a marker in which its answer begins and ends."""

_LETTER = r"[*_]*(?:\([A-J]\)|[A-J](?![\w'’]))[*_]*"
_CALLED = r"(?:(?i:options?|choices?|letters?|both)\s+)?"
_OPTION = re.compile(rf"{_CALLED}[*_]*(?:\(([A-J])\)|([A-J])(?=[*_]*[).:,。]|\s*[–—(]|[*_\s]*$))", re.MULTILINE)
_OPTIONS = re.compile(
    rf"{_CALLED}({_LETTER}(?:(?:\s*,\s*(?:and\s+|or\s+)?|\s+(?:and|or|&)\s+){_LETTER})++)(?!\s+(?!only\b|are\b)[a-z])"
)
_ALONE = re.compile(r"(?:\A|\n)[ \t*_]*(?:\(([A-J])\)|([A-J])[.)]?)[ \t*_.]*\s*\Z|\A\s*\(?([A-J])[.)]\s+\S[^\n]*\Z")
"""An option that is all that the last line says, or that a text of one line begins with."""
_CALLED_RIGHT = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s[*_]*\(?([A-J])\b(?:(?!\b(?:not|option|choice)\b)[^.?!\d\n]){0,80}"
    r"\bis\s(?:the\s)?(?:correct|right|best)\b[^\d]*\Z"
)
_LAST_WORDS = 300
"""Characters at a text's end in which an option may be called right."""
_DESCRIBED = re.compile(r"\\?(?:text(?:bf|rm)?\{)?\(?([A-J])[).]\}?(?:\\?\s|~)+[^\s,&](?!.*\(?\b[A-J]\)).*", re.DOTALL)
"""An option with what it says."""

_CURRENCY = r"(?:\b(?:Rs\b\.?|(?:US|CA|AU|NZ|HK|SG|R)\$|(?:INR|USD|EUR|GBP|CNY|JPY)\b)|[₹₩₽₺₫₴₪฿₦₱€£¥])"
_FORMULA = (
    r"(?:\$\$[^$]++\$\$|\$(?!\s)[^$\n]++(?<!\s)\$(?!\d)"
    r"|\\\((?:\\\\|(?!\\[()]).)++\\\)|\\\[(?:\\\\|(?!\\[\[\]]).)++\\\])"
)
_FORMULAS = re.compile(rf"{_FORMULA}(?:(?:\s*,)?\s*(?:,|and|or)\s*{_FORMULA})*+", re.DOTALL)
_SIGN = r"(?:(?:(?<![\w)\]}.])[-−]|\b(?i:negative)\s|(?<![\d)\]}%$]\s)\b(?i:minus)\s)(?:\s?[$€£])?)"
_LATEX_FRACTION = r"\\[dt]?frac\s*(?:\{[^{}]{1,40}\}|\d)\s*(?:\{[^{}]{1,40}\}|\d)"
_DIGITS = (
    r"(?:(?<![A-Za-z_\d.^])\d{1,3}(?:(?:[ \u00a0\u202f\u2009'’]|\\[,!]|\{,\})\d{3})++(?![\d/])(?:[.,]\d++)?"
    r"|(?<![A-Za-z_\d.^])\d++(?:[.,:/]\d++|\s/\s\d++)*+|(?<![\w.^])\.\d++)"
)
_ROOT = r"(?:\\sqrt\s*(?:\{[^{}]{1,40}\}|\d)|√\(?\d++\)?|\\pi(?![A-Za-z])|π)"
_POWER = r"(?:\s?\^\s?\{?[-−]?\d++\}?|[⁻⁰¹²³⁴-⁹]++)"
_NUMBER = (
    rf"(?:{_DIGITS}(?:\s?[¼½¾⅐-⅞]|\s\d++/\d++|\s?{_LATEX_FRACTION})?+(?!\d|(?:st|nd|rd|th)\b)"
    rf"(?:[eE][-+]?\d++|\s?(?:[×x*·]|\\times|\\cdot)\s?10{_POWER})?+|[½¼¾⅐-⅞]|{_LATEX_FRACTION}|{_ROOT})"
)
_QUANTITY = (
    rf"{_SIGN}?{_NUMBER}(?:\s?{_ROOT})*+{_POWER}?+(?:/\d++)?+"
    r"(?:\s?%|\s?\\%|\s(?:hundred|thousand|million|billion|trillion|dozen)s?\b|\s?[AaPp]\.?[Mm]\b)?+"
)
_ELEMENT = rf"(?:[-−+]?\s?(?:\\infty|∞)|{_QUANTITY})"
_TUPLE = rf"[(\[{{]\s*{_ELEMENT}(?:\s*[,;]\s*{_ELEMENT})++\s*[)\]}}]"
_VALUE = re.compile(rf"{_FORMULA}|{_TUPLE}|{_QUANTITY}", re.DOTALL)
_PLAIN_VALUE = re.compile(rf"{_TUPLE}|{_QUANTITY}")

_STOP = r"(?:(?<!\bRs)(?<!\bi\.e)(?<!\be\.g)[.!?](?=\s|$|[\"”’])|[。！？])"
_CLAUSE = re.compile(
    r"(?<!\bthat)[,;]?\s+(?:because|since|as|which|where)\s.*"
    r"|(?:,|(?<=\d)|(?<=[)\]*$%]))\s*[,;]?\s(?:(?:and|but)\s)?(?:not|so|i\.e\.|that\sis|rather\sthan|instead\sof)[,\s].*"
    rf"|\s[–—]\s*(?=[A-Za-z]).*|，(?!\s*[-\d]).*|{_STOP}.*|</answer>.*",
)
_REMARK = re.compile(r"(.*?\S)(?:\s+\((?!mod\b)|;\s+(?=.*[A-Za-z]{3}))(.*)")
_ABBREVIATED = re.compile(r"\b(?:i\.e|e\.g)\.")
_DENIAL = re.compile(r"(?:definitely\s|certainly\s)?not\b(?:.*\bbut\s)?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|(?<!\bRs)[.!?](?=\s)|[。！？]")
_TAG = re.compile(r"</?(?:b|strong|i|em|u|mark|span|code|p|s)>|<\|[^|<>\n]{1,40}\|>")
_STRING = re.compile(r"\"([^\"\n]+)\"")
_QUOTED = re.compile(r"([\"'“‘«„]).+[\"'”’»“]", re.DOTALL)
_INCHES = re.compile(r"[^'\"]*\d\"")
_LETTERS = re.compile(r"(?=[^\W\d_])[\u0400-\u1fff\u3040-\ud7af]")
"""Of alphabets that are not those of formulas."""
_RELATION = re.compile(r"[=<>≡]|\\equiv")
_TEXT = re.compile(r"\s*\\(?:text(?:bf|rm|it)?|mbox|mathrm)\{(?:\(([A-J])\)|([^{}]*))\}\s*\.?\s*")
_EQUALS = re.compile(r"=|≈|\\approx(?![A-Za-z])")
_OPERATOR = re.compile(r"\\(?:times|cdot|div|[dt]?frac|left|right|text|mbox|[,!%$ ()\[\]])")
_UNKNOWN = re.compile(r"\\|(?<![A-Za-z])[A-Za-z](?![A-Za-z])")
"""A symbol or a function, after the operators are gone."""


class _Box(NamedTuple):
    begin: int
    """Where its command begins."""
    start: int
    end: int


@lru_cache(256)
def extract(text: str, *, truncated: bool = False, opening: str = "") -> str | None:
    r"""The answer that a solution gives: its last \boxed{}, else what its last marker names, else its last value.

    Markers are `#### …`, `<answer>`, `Answer:`, `answer is …` and the same in some other languages; one behind the last
    box counts before it if it names a value. A thought does not count, nor does anything else up to `</think>`. In a
    truncated text only a complete box, or a marker whose sentence is complete, is an answer.

    `opening` is what the text goes on with: it is read with the text, but holds no answer by itself.
    """
    said = split(text).answer
    text = split(opening + said).answer.rpartition("</think>")[2]
    border = max(0, len(text) - len(said))
    closed = _boxes(text)
    boxes = [box for box in closed if box.end >= border]
    whole = text
    if truncated:
        ends = [match.end() for match in _SENTENCE_END.finditer(text)]
        whole = text[: ends[-1]] if ends else ""
    if boxes:
        return _marked(whole, boxes[-1].end, values=True) or _boxed(text, boxes)
    begin = text.rfind("\n", 0, border) + 1
    if truncated:
        return _marked(whole, begin)
    begun = {box.begin for box in closed}
    if opened := [box for box in _OPEN_BOX.finditer(text) if box.end() > border and box.start() not in begun]:
        return _tidy(opened[-1][1])
    return _marked(text, begin) or _alone(text[border:]) or _last_value(text, border)


def _boxes(text: str) -> list[_Box]:
    """The boxes that are closed and not empty, by where they begin."""
    boxes: list[_Box] = []
    opened: list[tuple[int, int] | None] = []
    for token in _BRACES.finditer(text):
        if token[1]:
            opened.append(token.span())
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            box = opened.pop()
            if box is not None and text[box[1] : token.start()].strip():
                boxes.append(_Box(*box, token.start()))
    return sorted(boxes)


def _boxed(text: str, boxes: list[_Box]) -> str | None:
    """What is in the last box, of nested ones the inner; with those before it that a comma, `and` or `or` joins."""
    joined = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        gap = text[box.end + 1 : joined[-1].begin]
        if len(gap) > _BOXES_APART or not _BETWEEN.fullmatch(_SPACING.sub(" ", gap).strip(" .")):
            break
        joined.append(box)
    joined.reverse()
    answers = [_tidy(text[box.start : box.end]) for box in joined]
    if len(answers) == 1:
        return answers[0]
    names = [_NAME.search(text[max(0, box.begin - _NAME_LENGTH) : box.begin]) for box in joined]
    if all(names) and len({name[1] for name in names if name}) == len(names):
        answers = [f"{name[1]} = {answer}" for name, answer in zip(names, answers, strict=True) if name]
    return " and ".join(dict.fromkeys(filter(None, answers)))


def _marked(text: str, begin: int = 0, *, values: bool = False) -> str | None:
    """What the last marker behind `begin` names that names anything; with `values` only an option or a value."""
    markers = list(_MARKER.finditer(text, begin))[-_MARKERS_TRIED:]
    for marker in reversed(markers):
        stated = _stated(text[marker.end() : marker.end() + _REACH])
        if stated and not (values and (_is_wordy(stated) or _RELATION.search(stated))):
            return stated
    return None


def _stated(rest: str) -> str | None:
    """The answer at the beginning of `rest`: options, a formula, the only value of a sentence, or a phrase."""
    rest = _TAG.sub("", rest)
    if string := _STRING.match(rest):
        rest = string[1]
    if options := _OPTIONS.match(rest):
        return re.sub(r"[()*_]", "", options[1])
    if option := _OPTION.match(rest):
        return option[1] or option[2]
    if formulas := _FORMULAS.match(rest):
        return _tidy(formulas[0])
    line = re.sub(rf"{_CURRENCY}\s*(?=[-−\d.])", "", rest.partition("\n")[0])
    if denial := _DENIAL.match(line):
        if "but" not in denial[0]:
            return None
        line = line[denial.end() :]
    phrase = _CLAUSE.sub("", line)
    if phrase.endswith("}") and "{" not in phrase:
        phrase = phrase[:-1]
    if (
        (remark := _REMARK.fullmatch(phrase))
        and _is_number(remark[1])
        and not _has_unknown(_ABBREVIATED.sub("", remark[2]))
    ):
        phrase = remark[1]
    if decimal(phrase) is None and _is_wordy(phrase):
        found = list(_FORMULAS.finditer(phrase)) or list(_PLAIN_VALUE.finditer(phrase))
        if len(found) == 1 and not _is_term(phrase, found[0]):
            return _tidy(found[0][0])
    return _tidy(phrase)


def _is_number(phrase: str) -> bool:
    return decimal(phrase) is not None or _PLAIN_VALUE.fullmatch(phrase.strip("*_")) is not None


def _is_term(phrase: str, value: re.Match[str]) -> bool:
    """Whether the value is a part of a longer expression."""
    before, after = phrase[: value.start()].rstrip(), phrase[value.end() :]
    return (
        before.endswith(("+", "*", "/", "^", "×"))
        or re.match(r"\s*[+^×]|\s\*\s|\*{1,2}\d|[A-Za-z]\b", after) is not None
    )


def _is_wordy(phrase: str) -> bool:
    return has_words(clean(phrase)) or _LETTERS.search(phrase) is not None


def _has_unknown(calculation: str) -> bool:
    return _UNKNOWN.search(_OPERATOR.sub(" ", calculation)) is not None


def _alone(text: str) -> str | None:
    """The option that is all that is said."""
    option = _ALONE.search(text) or _CALLED_RIGHT.search(text[-_LAST_WORDS:])
    return next(filter(None, option.groups())) if option else None


def _last_value(text: str, border: int) -> str | None:
    """The last formula with a number in it, tuple, or number that ends behind the border."""
    found = None
    for value in _VALUE.finditer(text, text.rfind("\n", 0, border) + 1):
        if value.end() > border and re.search(r"\d|[¼½¾⅐-⅞π√]", value[0]):
            found = value[0]
    if found is None:
        return None
    if re.match(_FORMULA, found, re.DOTALL):
        return _side(re.sub(r"^(?:\$\$?|\\[(\[])|(?:\$\$?|\\[)\]])$", "", found)) or _tidy(found)
    return _tidy(found)


def _side(formula: str) -> str | None:
    """What a formula comes to: behind its last `=`, or its last number where that is not one expression."""
    side = _EQUALS.split(formula)[-1]
    if re.search(r"\d", side) and not re.search(r"\\begin|\\end|\\\\|&", side) and not _is_wordy(side):
        return _tidy(side)
    numbers = _PLAIN_VALUE.findall(formula)
    return _tidy(numbers[-1]) if numbers else None


def _tidy(answer: str) -> str | None:
    r"""The answer without delimiters; a number without separators, currency and unit; `\text{}` as its text.

    Of a calculation, its result.
    """
    answer = answer.strip()
    if len(answer) > MAX_LENGTH:
        return answer
    answer = _undecorated(answer)
    if (digits := decimal(answer)) is not None:
        return digits
    if (result := _result(answer)) is not None:
        return result
    if text := _TEXT.fullmatch(answer):
        answer = text[1] or text[2]
    bare = re.sub(r"(?<!\\)(?:\\[()\[\]]|\$)", "", answer).strip(" \n\t*_`,;:").rstrip(" .。")
    if option := _DESCRIBED.fullmatch(bare):
        return option[1]
    return bare if bare not in ("", r"\boxed{") else None


def _undecorated(answer: str) -> str:
    """The answer without tags, quotes and currencies, a sign in words as a sign."""
    answer = _TAG.sub("", answer).strip(" *_`")
    if _QUOTED.fullmatch(answer):
        answer = answer[1:-1].strip()
    if _INCHES.fullmatch(answer):
        answer = answer[:-1]
    answer = re.sub(rf"\A(?:≈|~|\\approx(?![A-Za-z]))\s*|{_CURRENCY}\s*(?=[-−\d.])|(?<=\d)\s*{_CURRENCY}\Z", "", answer)
    return re.sub(r"\A(?:\\text\{\s*)?(?:negative|minus)\s*\}?\s*(?=[$\d.√\\])", "-", answer, flags=re.IGNORECASE)


def _result(answer: str) -> str | None:
    """The number that a calculation comes to, in plain digits: 9 of `16 - 3 - 4 = 9 eggs`; None of an equation."""
    *calculation, result = _EQUALS.split(answer)
    calculation_text = " ".join(calculation)
    if not re.search(r"\d", calculation_text) or _has_unknown(calculation_text):
        return None
    return decimal(result)
