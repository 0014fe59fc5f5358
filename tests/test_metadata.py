"""What is imported is declared: by the package itself, or by the extra that a file belongs to."""

import pytest
from declared import BASE, EXTRAS, ROOT, UNIMPORTED, WHERE_INSTALLED, declared, outside, owner, sources


@pytest.mark.parametrize("file", sources())
def test_what_a_file_imports_is_declared(file: str) -> None:
    extra = owner(file)
    allowed = BASE | (declared(EXTRAS[extra]) if extra else set())
    needed = {name for name in outside((ROOT / file).read_text()) if (file, name) not in WHERE_INSTALLED}
    assert needed - allowed == set()


@pytest.mark.parametrize("extra", [None, *(name for name in EXTRAS if name != "dev")])
def test_what_is_declared_is_imported(extra: str | None) -> None:
    files = [file for file in sources() if extra is None or owner(file) == extra]
    used = {name for file in files for name in outside((ROOT / file).read_text())}
    wanted = BASE if extra is None else declared(EXTRAS[extra])
    assert wanted - used - UNIMPORTED.keys() == set()


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import numpy.random", {"numpy"}),
        ("def f():\n    from sklearn.linear_model import LogisticRegression", {"scikit-learn"}),
        ("import importlib\nimportlib.import_module('treequest')", {"treequest"}),
        ("to_thread(importlib.import_module, 'treequest')", {"treequest"}),
        ("def f(m):\n    return import_module(f'sklearn.{m}')", {"scikit-learn"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import openai\nelse:\n    import torch", {"torch"}),
        ("from . import orjson\nimport prm.steps, json", set()),
    ],
)
def test_imports_are_found_wherever_they_stand(code: str, names: set[str]) -> None:
    assert outside(code) == names


def test_no_sentence_sends_its_reader_to_an_index_that_has_no_such_package() -> None:
    files = [*(ROOT / file for file in sources()), ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert [str(file.relative_to(ROOT)) for file in files if "tts-server[" in file.read_text()] == []
