"""Model directories of every family, each made once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from tiny_prm import save_tiny_prm


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The model directory of a family."""
    return cache(lambda family: save_tiny_prm(family, tmp_path_factory.mktemp(family)))
