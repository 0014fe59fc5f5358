"""What LaTeX means, as a key that only equal values share. The worker process imports it, the server never does.

The rule: a key may join two expressions only on evidence. Numbers are compared to 50 digits, functions at points of
several sizes and of both signs, and what is not continuous (floor, gcd, max, a function without a definition) by its
structure, that is by its name and the keys of its arguments. What has no such key has none, and is its own text.
"""

import hashlib
import re
import string
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import sympy as sp  # type: ignore[import-untyped]
from latex2sympy2_extended import NormalizationConfig, latex2sympy  # type: ignore[import-untyped]
from latex2sympy2_extended.latex2sympy2 import ConversionConfig  # type: ignore[import-untyped]
from math_verify import LatexExtractionConfig, parse, verify  # type: ignore[import-untyped]
from sympy.core.function import AppliedUndef  # type: ignore[import-untyped]
from sympy.core.relational import Relational  # type: ignore[import-untyped]
from sympy.logic.boolalg import BooleanAtom  # type: ignore[import-untyped]

DIGITS = 50
"""Digits to which values are compared."""
MAX_EXPONENT = 20_000
"""Powers beyond it are not worked out: their digits alone take longer than a vote."""
SCALES = (0.3, 1, 3, 40)
"""Sizes at which functions are compared; each is drawn from once with either sign."""
FAR = (10**15,)
"""Size that is compared besides where an absolute value could turn elsewhere."""
CLOSE = 1e-6
"""Relative error up to which math-verify may call two numbers equal."""
# Without `units`, which takes 2ab for 2 of the unit "ab"; without boxes, which are open by now.
_LATEX = LatexExtractionConfig(
    boxed_match_priority=-1,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    ),
)
_CASES = ConversionConfig(lowercase_symbols=False)
_STRUCTURED = (sp.floor, sp.ceiling, sp.Mod, sp.Max, sp.Min, sp.sign, sp.Piecewise, AppliedUndef)
_LATTICE = re.compile(r"\\(?:operatorname\s*\{\s*)?(gcd|lcm)(?:\s*\})?\s*\(")
_IMAGINARY = re.compile(r"(?<![A-Za-z\\_])i(?![A-Za-z])|\^\{?i")


class UnreadableError(ValueError):
    """The expression has no key."""


def key(latex: str) -> str:
    r"""The key of an expression, set, interval, relation or matrix; of relations between `\lor` and `\land` as well.

    Raises:
        UnreadableError: it has none.
        Exception: sympy fails on it, in any of its ways.
    """
    alternatives = [[_read(part) for part in alternative.split(r"\land")] for alternative in latex.split(r"\lor")]
    return _key(_any([_all(parts) for parts in alternatives]))


def equal(gold: str, answer: str) -> bool:
    """Whether math-verify takes `answer` for `gold`; of two numbers only if they are one, or a decimal comes close.

    Raises:
        Exception: one of the two is not read.
    """
    wanted, given = map(_parse, (gold, answer))
    if any(isinstance(side, Relational | BooleanAtom) and not side.free_symbols for side in (wanted, given)):
        return False
    if verify(wanted, given, timeout_seconds=None) is not True:
        return False
    if any(not isinstance(side, sp.Expr) or side.free_symbols for side in (wanted, given)):
        return True
    difference = sp.N(abs(wanted - given), DIGITS, maxn=40 * DIGITS)
    if not difference or _is_noise(difference):
        return True
    return "." in gold + answer and bool(difference <= CLOSE * abs(sp.N(wanted, DIGITS)))


def _parse(latex: str) -> Any:
    found = parse(f"${latex}$", [_LATEX], fallback_mode="no_fallback", parsing_timeout=None)
    if not found:
        raise UnreadableError(latex)
    return found[0]


def _any(parts: list[Any]) -> Any:
    return sp.Or(*parts) if len(parts) > 1 else parts[0]


def _all(parts: list[Any]) -> Any:
    return sp.And(*parts) if len(parts) > 1 else parts[0]


def _read(latex: str) -> Any:
    """What LaTeX says, not worked out; gcd and lcm, which the parser takes for numbers, as structure."""
    structures: dict[Any, Any] = {}
    while match := _LATTICE.search(latex):
        end = _closing(latex, match.end())
        arguments = [_read(argument) for argument in _arguments(latex[match.end() : end])]
        placeholder = rf"\theta_{{{9000 + len(structures)}}}"
        structures[_latex(placeholder)] = _lattice(match[1], arguments)
        latex = f"{latex[: match.start()]}{placeholder} {latex[end + 1 :]}"
    value = _latex(latex.strip())
    return value.xreplace(structures) if structures else value


def _latex(latex: str) -> Any:
    return latex2sympy(
        latex,
        is_real=not _IMAGINARY.search(latex),
        convert_degrees=False,
        normalization_config=None,
        conversion_config=_CASES,
    )


def _closing(latex: str, start: int) -> int:
    depth = 1
    for place in range(start, len(latex)):
        depth += {"(": 1, ")": -1}.get(latex[place], 0)
        if depth == 0:
            return place
    raise UnreadableError(latex)


def _arguments(latex: str) -> Iterator[str]:
    depth = start = 0
    for place, letter in enumerate(latex):
        depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            yield latex[start:place]
            start = place + 1
    yield latex[start:]


def _lattice(name: str, arguments: list[Any]) -> Any:
    values = [argument.doit() for argument in arguments]
    if all(value.is_Integer for value in values):
        return (sp.gcd if name == "gcd" else sp.lcm)(values)
    return _symbol(name, sorted(set(map(_key, values))))


def _symbol(name: str, keys: Iterable[str]) -> Any:
    return sp.Symbol(f"{name}[{';'.join(keys)}]", real=True)


def _key(value: Any) -> str:
    """Structure by its parts, a set without order, an expression by its values."""
    for power in value.atoms(sp.Pow):
        if power.exp.is_number and power.base not in (0, 1, -1) and abs(sp.N(power.exp, 5)) > MAX_EXPONENT:
            raise UnreadableError(f"the power {power.exp} is too large")
    for factorial in value.atoms(sp.factorial):
        if factorial.args[0].is_number and sp.N(factorial.args[0], 5) > MAX_EXPONENT // 4:
            raise UnreadableError("the factorial is too large")
    value = value.doit()
    match value:
        case sp.FiniteSet():
            parts = sorted(set(map(_key, value.args)))
            return parts[0] if len(parts) == 1 else f"{{{';'.join(parts)}}}"
        case sp.Interval():
            left, right = "(" if value.left_open else "[", ")" if value.right_open else "]"
            return f"{left}{_key(value.start)};{_key(value.end)}{right}"
        case sp.Union():
            return "∪".join(sorted(map(_key, value.args)))
        case sp.MatrixBase():
            rows = [list(value)] if 1 in value.shape else value.tolist()
            return "|".join(f"({';'.join(map(_key, row))})" for row in rows)
        case sp.Equality():
            return _key(value.rhs) if isinstance(value.lhs, sp.Symbol | AppliedUndef) else _equation_key(value)
        case Relational() | sp.And() | sp.Or():
            several = len(value.free_symbols) > 1
            return _inequality_key(value) if several and isinstance(value, Relational) else _key(value.as_set())
        case sp.Expr():
            return _expression_key(value)
        case sp.Set() if value.is_empty:
            return "∅"
        case sp.Set() if value == sp.S.Reals:
            return "(-oo;oo)"
        case sp.Set() if value is not sp.S.UniversalSet:
            return str(sp.srepr(value))
        case _:
            raise UnreadableError(f"{value} is no value")


def _equation_key(equation: Any) -> str:
    """An equation by its left minus its right side, up to a factor."""
    first, *others = _values(equation.lhs - equation.rhs)
    return _hashed("=", [_digits(_evaluated(other / first)) for other in others])


def _inequality_key(relation: Any) -> str:
    """An inequality in several variables by its greater minus its lesser side, up to a positive factor."""
    if not hasattr(relation, "gts"):
        first, *others = _values(relation.lhs - relation.rhs)
        return _hashed("≠", [_digits(_evaluated(other / first)) for other in others])
    sign = ">" if relation.rel_op in {"<", ">"} else "≥"
    values = list(_values(relation.gts - relation.lts))
    return _hashed(sign, [_digits(_evaluated(value / abs(values[0]))) for value in values])


def _expression_key(expression: Any) -> str:
    """A number by its digits, a function by its values at points that are drawn from the names of its symbols."""
    if expression in (sp.oo, -sp.oo):
        return str(expression)
    expression = _simple(expression)
    if expression.is_Rational:
        return _exact(expression)
    if str(expression) in string.ascii_letters:
        return str(expression).lower()
    if not _symbols(expression):
        number = expression.xreplace(dict.fromkeys(expression.free_symbols, sp.I))
        return _number_key(_evaluated(number), number)
    values = list(_values(expression))
    digits = list(map(_digits, values))
    return _hashed(_kind(expression), digits) if len(set(digits)) > 1 else _number_key(values[0], values[0])


def _simple(expression: Any) -> Any:
    """With structure in place of what is not continuous, decimals as fractions, and without roots that cancel out."""
    expression = expression.xreplace({number: sp.Rational(str(number)) for number in expression.atoms(sp.Float)})
    expression = expression.replace(lambda part: isinstance(part, _STRUCTURED) and part.free_symbols, _structure)
    if _kind(expression) and all(abs(power.exp) < 20 for power in expression.atoms(sp.Pow) if power.exp.is_Rational):
        expanded = sp.expand(expression)
        return expression if _kind(expanded) else expanded
    return expression


def _structure(part: Any) -> Any:
    if isinstance(part, sp.ceiling):
        return -_structure(sp.floor(-part.args[0], evaluate=False))
    if isinstance(part, sp.Piecewise):
        raise UnreadableError(f"{part} has cases")
    keys = map(_key, part.args)
    return _symbol(part.func.__name__, sorted(keys) if isinstance(part, sp.Max | sp.Min) else keys)


def _symbols(expression: Any) -> set[Any]:
    return {symbol for symbol in expression.free_symbols if symbol.name != "i"}


def _kind(expression: Any) -> str:
    """`+` of what has a logarithm or an even root of a variable, which is compared where variables are positive."""
    if any(_symbols(log) for log in expression.atoms(sp.log)):
        return "+"
    powers = (power for power in expression.atoms(sp.Pow) if _symbols(power.base))
    return "+" if any(not power.exp.is_Rational or power.exp.q % 2 == 0 for power in powers) else ""


def _values(expression: Any) -> Iterator[Any]:
    """Its values at each point."""
    expression = _simple(expression)
    if not _symbols(expression):
        raise UnreadableError(f"{expression} does not depend on anything")
    if any(_symbols(part) for part in expression.atoms(sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.Derivative)):
        raise UnreadableError(f"{expression} is not worked out")
    positive = bool(_kind(expression))
    scales = SCALES + FAR if expression.has(sp.Abs) else SCALES
    for scale in scales:
        for half in (0, 1):
            yield _value(expression, partial(_drawn, scale=scale, half=half, positive=positive))


def _drawn(name: str, scale: float, half: int, positive: bool) -> Any:
    """A number of once to twice the scale; its sign changes from half to half, with another one for another name."""
    seed = zlib.crc32(f"{name} {scale} {half}".encode())
    sign = 1 if positive else (-1) ** (half + zlib.crc32(f"{scale} {name}".encode()) // 7)
    return sign * sp.Rational(str(scale)) * sp.Rational(1013 + seed % 1013, 1013)


def _value(expression: Any, draw: Callable[[str], Any]) -> Any:
    drawn = {symbol: sp.I if symbol.name == "i" else draw(symbol.name) for symbol in expression.free_symbols}
    return _evaluated(expression.xreplace(drawn))


def _evaluated(number: Any) -> Any:
    """Its value, exact if it is rational, else with 50 digits beyond its point; odd roots are those of real numbers.

    Raises:
        UnreadableError: it has none, or one that is too large to be told from its neighbours.
    """
    number = number.doit().replace(
        lambda part: (
            part.is_Pow and part.exp.is_Rational and part.exp.q % 2 and part.exp.q > 1 and part.base.is_negative
        ),
        lambda power: (-1) ** power.exp.p * (-power.base) ** power.exp,
    )
    if number.is_Rational:
        return number
    size = sp.N(abs(number), 5)
    if not (size.is_number and size.is_finite) or size.is_infinite:
        raise UnreadableError(f"{number} has no finite value")
    digits = DIGITS + (max(0, int(sp.log(size, 10).evalf(5))) if size > 1 else 0)
    if digits > 4000:
        raise UnreadableError(f"{number} is too large")
    value = sp.N(number, digits, maxn=8 * digits)
    if not value.is_number or not value.is_finite:
        raise UnreadableError(f"{number} has no finite value")
    return value


def _number_key(value: Any, number: Any) -> str:
    """A constant: the fraction that it is, else its digits.

    Raises:
        UnreadableError: it comes so close to a fraction that its digits do not tell it from that.
    """
    parts = value.as_real_imag()
    near = [_nearest(part) for part in parts]
    if not value.is_Rational and all(part.is_Rational for part in near):
        rest = sp.N(number - near[0] - sp.I * near[1], 10, maxn=40 * DIGITS)
        if any(part and not _is_noise(part) for part in rest.as_real_imag()):
            raise UnreadableError(f"{number} is nearly {near}")
    real, imaginary = map(_exact, near)
    if (real, imaginary) == ("0", "1"):
        return "i"
    return real if imaginary == "0" else f"{real}+{imaginary}i"


def _nearest(real: Any) -> Any:
    """The fraction of up to nine digits that a number is, else the number; no digits of its own are nothing."""
    if real.is_Rational:
        return real
    if _is_noise(real):
        return sp.Integer(0)
    exact = sp.Rational(real)
    near = exact.limit_denominator(10**9)
    return near if abs(exact - near) <= min(1, abs(exact)) / sp.Integer(10) ** (DIGITS - 8) else real


def _is_noise(real: Any) -> bool:
    """Whether a number is what is left of others that cancel out to some hundred digits."""
    return bool(real.is_Float and real._prec < 20)


def _exact(real: Any) -> str:
    if real.is_Rational:
        text = format(int(real.p), "x") + (f"/{int(real.q):x}" if real.q != 1 else "")
        return str(real) if len(text) < 1000 else _hashed("#", [text])
    return _float(real)


def _digits(value: Any) -> str:
    """A value at a point, to 50 digits."""
    parts = (sp.N(part, DIGITS + 10) for part in value.as_real_imag())
    return "+".join("0" if not part or _is_noise(part) else _float(part) for part in parts)


def _float(real: Any) -> str:
    digits = max(DIGITS, int(sp.log(abs(real), 10).evalf(5)) + 20) if abs(real) > 1 else DIGITS
    return str(sp.Float(real, digits)) if digits > DIGITS else f"{sp.Float(real, DIGITS)}"


def _hashed(prefix: str, parts: Iterable[str]) -> str:
    return f"{prefix}~{hashlib.sha256('~'.join(parts).encode()).hexdigest()[:32]}"
