"""The worker of `strategies.answers.symbolic`: a script that reads LaTeX with math-verify. No server imports it."""

import json
import logging
import os
import resource
import signal
import sys
import zlib
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import sympy as sp  # type: ignore[import-untyped]
from latex2sympy2_extended import NormalizationConfig  # type: ignore[import-untyped]
from math_verify import LatexExtractionConfig, parse, verify  # type: ignore[import-untyped]
from sympy.core.function import AppliedUndef  # type: ignore[import-untyped]
from sympy.core.relational import Relational  # type: ignore[import-untyped]

CPU_LIMIT_S = 2.0
"""CPU seconds for one request: CPU, so that a busy machine does not change a key."""
MEMORY_LIMIT = 4 << 30
"""Bytes of address space."""

# Without `units`, which takes 2ab for 2 of the unit "ab"; without boxes, which are open by now.
_LATEX = LatexExtractionConfig(
    boxed_match_priority=-1,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    ),
)


def serve() -> None:
    """Answers requests from standard input until it closes, or until one takes too long."""
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        logging.disable(logging.ERROR)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, resource.getrlimit(resource.RLIMIT_AS)[1]))
        for line in sys.stdin:
            signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
            reply = _reply(*json.loads(line))
            signal.setitimer(signal.ITIMER_PROF, 0)
            print(json.dumps(reply), file=replies, flush=True)


def _reply(kind: str, *latex: str) -> bool | str | None:
    if kind == "ready":
        return True
    try:
        parsed = [_parse(text) for text in latex]
        return _key(*parsed) if kind == "key" else verify(*parsed, timeout_seconds=None) is True
    except Exception:
        # sympy fails in any way there is on input it does not foresee, and all of them say: not readable.
        return None


def _parse(latex: str) -> Any:
    found = parse(f"${latex}$", [_LATEX], fallback_mode="no_fallback", parsing_timeout=None)
    if not found:
        raise ValueError(f"math-verify does not read {latex!r}")
    return found[0]


def _key(value: Any) -> str:
    """Structure by its parts, a set without order, an expression by its value."""
    value = value.doit()
    match value:
        case sp.FiniteSet():
            parts = _sorted_keys(value.args)
            return parts[0] if len(parts) == 1 else f"{{{';'.join(parts)}}}"
        case sp.Interval():
            left, right = "(" if value.left_open else "[", ")" if value.right_open else "]"
            return f"{left}{_key(value.start)};{_key(value.end)}{right}"
        case sp.Union():
            return "∪".join(_sorted_keys(value.args))
        case sp.MatrixBase():
            rows = [list(value)] if 1 in value.shape else value.tolist()
            return "|".join(f"({';'.join(map(_key, row))})" for row in rows)
        case sp.Equality():
            return _equation_key(value)
        case Relational() | sp.And() | sp.Or():
            return _key(value.as_set())
        case sp.Expr():
            return _expression_key(value)
        case _:
            return str(sp.srepr(value))


def _sorted_keys(values: Iterable[Any]) -> list[str]:
    return sorted(set(map(_key, values)))


def _equation_key(equation: Any) -> str:
    """Of `x = …` the right side; of any other equation its left minus its right side, up to a factor."""
    if isinstance(equation.lhs, sp.Symbol | AppliedUndef):
        return _key(equation.rhs)
    first, *others = (_value(equation.lhs - equation.rhs, point) for point in range(3))
    return "=" + "~".join(_digits(other / first) for other in others)


def _expression_key(expression: Any) -> str:
    """A rational number as it is, else the values at points that are drawn from the names of the symbols.

    Expressions that agree there to 12 digits are equal but for a freak accident, whatever their form, so no
    simplifier has to find out how.
    """
    if expression.is_Rational or expression.is_infinite:
        return str(expression)
    if all(symbol.name == "i" for symbol in expression.free_symbols):
        return _digits(_value(expression, 0))
    return "~" + "~".join(_digits(_value(expression, point)) for point in range(2))


def _value(expression: Any, point: int) -> Any:
    """Its value to 30 digits, with a number in place of each symbol; `i` is the imaginary unit.

    Raises:
        ValueError: it has none there.
    """
    decimals = {number: sp.Rational(str(number)) for number in expression.atoms(sp.Float)}
    drawn = {symbol: _drawn(symbol.name, point) for symbol in expression.free_symbols}
    value = sp.N(expression.xreplace(decimals | drawn).doit(), 30, chop=True)
    if not value.is_number or not value.is_finite:
        raise ValueError(f"{expression} has no finite value")
    return value


def _drawn(name: str, point: int) -> Any:
    """A number of size 1 to 3, positive at even points and negative at odd ones."""
    if name == "i":
        return sp.I
    return (-1) ** point * sp.Rational(1013 + zlib.crc32(f"{name}{point}".encode()) % 2003, 1013)


def _digits(value: Any) -> str:
    """The fraction that a number is, else 12 digits of it."""
    real, imaginary = value.as_real_imag()
    if imaginary:
        return f"{_digits(real)}+{_digits(imaginary)}i"
    exact = Fraction(str(real))
    near = exact.limit_denominator(10_000)
    return str(near) if abs(exact - near) <= abs(exact) / 10**20 else f"{float(exact):.11e}"


if __name__ == "__main__":
    serve()
