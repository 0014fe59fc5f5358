"""Reward models in this process, for tests that ask them a few things."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prm import FamilyPRM
from prm.backend.local import load_prm

T = TypeVar("T")


def with_prm(directory: Path, do: Callable[[FamilyPRM], Coroutine[Any, Any, T]], **options: Any) -> T:
    """What `do` returns of a started reward model, which is closed again."""

    async def main() -> T:
        prm = load_prm(str(directory), **options)
        await prm.backend.start()
        try:
            return await do(prm)
        finally:
            await prm.backend.close()

    return asyncio.run(main())


def score(directory: Path, question: str, solutions: Sequence[Sequence[str]], **options: Any) -> list[list[float]]:
    """The scores of some solutions."""

    async def do(prm: FamilyPRM) -> list[list[float]]:
        return [list(result.scores) for result in await prm.score(question, solutions)]

    return with_prm(directory, do, **options)
