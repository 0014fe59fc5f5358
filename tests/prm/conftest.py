"""Model directories of every family, each made once."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_prm import save_tiny_prm

Saved = Callable[[str], Path]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Models of a few thousand weights gain nothing from a second core, and lose much where it is busy."""
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The model directory of a family."""
    return cache(lambda family: save_tiny_prm(family, tmp_path_factory.mktemp(family)))
