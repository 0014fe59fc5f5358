"""Prints what a project of a pyproject.toml needs: `requirements_of.py FILE [EXTRA …]`, one requirement a line."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
extras = project["optional-dependencies"]
print("\n".join([*project["dependencies"], *(line for extra in sys.argv[2:] for line in extras[extra])]))
