"""Where a chat template shows instructions to its model: found out by rendering, as no template says it.

Templates drop a role that they do not know or write it out as it is, refuse a `system` turn that is not the first, or
leave it out. Knows nothing of tokenizers.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any
from uuid import uuid4

from tts_server.errors import InvalidRequest

Turn = dict[str, Any]
Render = Callable[[list[Turn], dict[str, Any]], str]
"""Turns and the template's variables to text.

Raises:
    InvalidRequest: the template does not take them.
"""

_ROLES = ("system", "developer")


class Instructions:
    """Places `system` and `developer` turns so that a template shows what they say.

    Args:
        render: the template.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        # Letters and digits only, so that no filter of a template changes it.
        self._mark = f"x{uuid4().hex}x"

    def placed(self, turns: list[Turn], variables: Mapping[str, Any]) -> list[Turn]:
        """The turns with every instruction where the model sees it.

        They stay as they are if the template shows them there, but that `developer` becomes `system` where it knows no
        such role. Otherwise they become one first `system` turn, or the beginning of the first `user` turn.
        """
        roles = [turn.get("role") for turn in turns]
        if not {*roles} & {*_ROLES}:
            return turns
        if "developer" in roles and not self._knows_developers:
            turns = [{**turn, "role": "system"} if turn.get("role") == "developer" else turn for turn in turns]
        places = [i for i, turn in enumerate(turns) if turn.get("role") in _ROLES]
        if places == [0] and self._shows_first[turns[0]["role"]]:
            return turns
        marked = [
            {**turn, "content": f"{self._mark}{i}x"} if turn.get("role") in _ROLES else turn
            for i, turn in enumerate(turns)
        ]
        marks = [turn["content"] for turn in marked if turn.get("role") in _ROLES]
        for arrange in (list, _first, _before_the_user):
            rendered = self._tried(arrange(marked), variables)
            if rendered is not None and all(mark in rendered for mark in marks):
                return arrange(turns)
        return turns

    @cached_property
    def _knows_developers(self) -> bool:
        """Whether the template has something to say of the role; not where it writes any role as it is."""
        known, anybody = self._with("developer"), self._with(self._mark + "role")
        if known is None or self._mark not in known:
            return False
        return anybody is None or known != anybody.replace(self._mark + "role", "developer")

    @cached_property
    def _shows_first(self) -> Mapping[str, bool]:
        """Whether the template shows a first turn of a role."""
        return {role: self._mark in (self._with(role) or "") for role in _ROLES}

    def _with(self, role: str) -> str | None:
        """A chat that begins with a turn of this role."""
        return self._tried([{"role": role, "content": self._mark}, {"role": "user", "content": "Hi."}], {})

    def _tried(self, turns: list[Turn], variables: Mapping[str, Any]) -> str | None:
        try:
            return self._render(turns, dict(variables))
        except InvalidRequest:
            return None


def _divided(turns: Sequence[Turn]) -> tuple[str, list[Turn]]:
    """What all instructions say, and the other turns."""
    said = "\n\n".join(turn["content"] for turn in turns if turn.get("role") in _ROLES)
    return said, [turn for turn in turns if turn.get("role") not in _ROLES]


def _first(turns: Sequence[Turn]) -> list[Turn]:
    said, others = _divided(turns)
    return [{"role": "system", "content": said}, *others]


def _before_the_user(turns: Sequence[Turn]) -> list[Turn]:
    said, others = _divided(turns)
    place = next((i for i, turn in enumerate(others) if turn.get("role") == "user"), None)
    if place is None:
        return [{"role": "user", "content": said}, *others]
    user = {**others[place], "content": f"{said}\n\n{others[place]['content']}"}
    return [*others[:place], user, *others[place + 1 :]]
