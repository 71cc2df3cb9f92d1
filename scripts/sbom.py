"""What is inside: a CycloneDX bill of materials, made of pyproject.toml and requirements/runtime.txt.

    python3 scripts/sbom.py [FILE]

Its time is SOURCE_DATE_EPOCH (required), and its serial number follows from its content, so that the same commit gives
the same file. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "runtime.txt"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; (.*?))?(?: \\)?$")
_VIA = re.compile(r"^ +#(?: via)? +([A-Za-z0-9._-]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Pin:
    """A package of the lock. ``wanted_by``: names of packages, or of the project."""

    name: str
    version: str
    marker: str
    sha256: tuple[str, ...]
    wanted_by: tuple[str, ...]

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def pins(lock: str) -> Iterator[Pin]:
    """The packages of a lock as uv writes it."""
    for entry in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE):
        head, *below = entry.splitlines() or [""]
        if found := _PIN.match(head):
            hashes = tuple(_HASH.findall(entry))
            via = tuple(match[1] for line in below if (match := _VIA.match(line)))
            yield Pin(found[1], found[2], found[3] or "", hashes, via)


def bill(project: Mapping[str, Any], lock: str, epoch_s: int) -> dict[str, Any]:
    """The document. ``project``: the table of pyproject.toml."""
    known = sorted(pins(lock), key=lambda pin: pin.name)
    root = Pin(project["name"], project["version"], "", (), ())
    always = reachable(known, (name_of(requirement) for requirement in project["dependencies"]))
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_s)),
            "component": {
                "type": "application",
                "bom-ref": root.purl,
                "name": root.name,
                "version": root.version,
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": root.purl,
            },
        },
        "components": [component(pin, is_optional=pin.name not in always) for pin in known],
        "dependencies": [
            {"ref": pin.purl, "dependsOn": [other.purl for other in known if pin.name in other.wanted_by]}
            for pin in [root, *known]
        ],
    }
    content = json.dumps(document, sort_keys=True)
    return document | {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"}


def component(pin: Pin, *, is_optional: bool) -> dict[str, Any]:
    """Of one package, with the hashes of all its files that the lock admits."""
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "scope": "optional" if is_optional else "required",
        "purl": pin.purl,
        "externalReferences": [
            {
                "type": "distribution",
                "url": f"https://pypi.org/project/{pin.name}/{pin.version}/",
                "hashes": [{"alg": "SHA-256", "content": sha256} for sha256 in pin.sha256],
            }
        ],
    }
    if pin.marker:
        made["properties"] = [{"name": "holdpay:marker", "value": pin.marker}]
    return made


def reachable(known: Iterable[Pin], names: Iterable[str]) -> set[str]:
    """Names of the packages that these need, themselves included."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [pin.name for pin in known if name in pin.wanted_by]
    return found


def name_of(requirement: str) -> str:
    """As the lock has it: `httpx[socks]>=0.28` is httpx."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement)[0]).lower()


def main() -> int:
    if "SOURCE_DATE_EPOCH" not in os.environ:
        print("scripts/sbom.py: SOURCE_DATE_EPOCH is not set: it is the document's time.", file=sys.stderr)
        return 1
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = json.dumps(bill(project, LOCK.read_text(), int(os.environ["SOURCE_DATE_EPOCH"])), indent=2) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
