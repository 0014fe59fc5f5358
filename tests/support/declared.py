"""What a file imports, and what pyproject.toml declares: for the package itself or for the extra of the file."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("prm", "strategies", "tts_server", "bench")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

OWNERS = {
    "tts_server/engines/vllm*.py": "vllm",
    "prm/backend/lora.py": "vllm",
    "tts_server/engines/transformers.py": "transformers",
    "tts_server/engines/decoding/loop.py": "transformers",
    "tts_server/engines/decoding/sampler.py": "transformers",
    "tts_server/engines/tokens/chat_template.py": "transformers",
    "tts_server/weights/gguf.py": "transformers",
    "tts_server/prm_serving/models.py": "transformers",
    "prm/backend/incremental.py": "transformers",
    "prm/backend/kv_cache.py": "transformers",
    "prm/backend/reference.py": "transformers",
    "prm/backend/heads.py": "transformers",
    "prm/backend/local.py": "transformers",
    "tts_server/observe/otel/*.py": "otel",
    "tts_server/middleware/span.py": "otel",
    "strategies/search/treequest_tree.py": "search",
    "bench/studies/prm.py": "train",
    "bench/prm_training/models.py": "train",
    "bench/prm_training/tuning.py": "train",
    "bench/*": "bench",
}
"""The extra that a file belongs to; any other file must do with what the package itself needs."""
WHERE_INSTALLED = {
    ("tts_server/weights/hub.py", "huggingface-hub"),
    ("tts_server/app.py", "vllm"),
    # That program's own environment runs these.
    ("bench/studies/harnesses/inspect_gsm8k.py", "inspect-ai"),
    # The file beside it, which a process of its own imports by its name alone.
    ("strategies/answers/symbolic/worker.py", "expressions"),
}
"""Files that use a distribution only where somebody else has installed it."""
UNIMPORTED = {
    "python-multipart": "Starlette reads forms by it",
    "accelerate": "Transformers places weights by it",
    "gguf": "Transformers reads GGUF files by it",
    "opentelemetry-exporter-otlp-proto-http": "OpenTelemetry loads it by its entry point",
    "openai": "what the documents show, and a type of the SDK",
}
OTHER_NAMES = {"sklearn": "scikit-learn", "opentelemetry": "opentelemetry-sdk", "vllm": "vllm"}
"""Modules whose distribution has another name, or several."""


def declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


DISTRIBUTIONS = packages_distributions()
BASE = declared(PROJECT["dependencies"])


def distribution(module: str) -> str:
    top = module.partition(".")[0]
    installed = DISTRIBUTIONS.get(top, [])
    return OTHER_NAMES.get(top) or canonicalize_name(installed[0] if len(set(installed)) == 1 else top)


def imported(code: str) -> Iterator[str]:
    """The modules that the code imports when it runs: also inside of functions, and by `import_module`."""
    waiting: list[ast.AST] = [ast.parse(code)]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                waiting.extend(node.orelse)
                continue
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.Call() if "import_module" in ast.unparse(node):
                texts = (part.values[0] if isinstance(part, ast.JoinedStr) else part for part in node.args)
                yield from (t.value for t in texts if isinstance(t, ast.Constant) and isinstance(t.value, str))
        waiting.extend(ast.iter_child_nodes(node))


def outside(code: str) -> set[str]:
    """The distributions that they come from."""
    tops = {module.partition(".")[0] for module in imported(code)} - {*sys.stdlib_module_names, *PACKAGES}
    return {distribution(top) for top in tops if top}


def owner(file: str) -> str | None:
    return next((extra for pattern, extra in OWNERS.items() if fnmatch(file, pattern)), None)


def sources() -> list[str]:
    return sorted(str(file.relative_to(ROOT)) for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
