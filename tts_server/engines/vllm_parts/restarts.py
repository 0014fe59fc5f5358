"""How fast, and how often, something that dies is started again. Pure."""

_FIRST_DELAY_S = 1.0
_MAX_DELAY_S = 60.0
_STABLE_S = 120.0
_ATTEMPTS = 8


class Restarts:
    """Starts that come after one another, the slower the more of them die young.

    Args:
        attempts: starts in a row that may fail or die young, before it is given up.
        stable_s: what lived longer than this did not die of its start.
    """

    def __init__(self, attempts: int = _ATTEMPTS, stable_s: float = _STABLE_S) -> None:
        self.count = 0
        """Starts again that went well."""
        self._attempts = attempts
        self._stable_s = stable_s
        self._in_a_row = 0

    def delay_s(self, lived_s: float) -> float | None:
        """Seconds until the next start, after something has lived for so long; None where it is given up."""
        self._in_a_row = 1 if lived_s > self._stable_s else self._in_a_row + 1
        if self._in_a_row > self._attempts:
            return None
        return min(_FIRST_DELAY_S * 2.0 ** (self._in_a_row - 1), _MAX_DELAY_S)
