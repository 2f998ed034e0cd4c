"""Asks for known vulnerabilities of what an environment has installed.

    python audit.py PYTHON

Ends with 1 where one is known. A service that does not know a package is no service:
`pip-audit` then says "No known vulnerabilities found" of what nobody looked up, so this
counts what was.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SERVICES = ("pypi", "osv")


def installed(python: Path) -> str:
    """Requirements of an environment, each with its version, without our own."""
    listed = subprocess.run(
        [python, "-m", "pip", "freeze", "--exclude", "dqa_keras"],
        check=True,
        capture_output=True,
        text=True,
    )
    return listed.stdout


def answers(service: str, requirements: str) -> list[dict] | None:
    """What a service says of each package that it knows; `None` if not reached."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "requirements.txt")
        path.write_text(requirements)
        asked = subprocess.run(
            [
                *(sys.executable, "-m", "pip_audit", "--service", service),
                *("--requirement", path, "--no-deps", "--disable-pip"),
                *("--format", "json", "--timeout", "15", "--progress-spinner", "off"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        packages = json.loads(asked.stdout)["dependencies"]
    except json.JSONDecodeError:
        return None
    return [package for package in packages if "skip_reason" not in package] or None


def main(python: Path) -> None:
    """Prints what is known, or that nobody could be asked."""
    requirements = installed(python)
    count = len(requirements.splitlines())
    for service in SERVICES:
        known = answers(service, requirements)
        if known is None:
            continue
        flaws = [
            f"{package['name']} {package['version']}: {flaw['id']}"
            for package in known
            for flaw in package["vulns"]
        ]
        print(f"{service}: {len(known)} of {count} packages looked up")
        sys.exit("\n".join(flaws) if flaws else 0)
    print(
        f"NOT AUDITED: none of {count} packages could be looked up, as no "
        f"vulnerability service was reached (tried {', '.join(SERVICES)})"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
