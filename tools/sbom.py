# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The list of an image's contents (SBOM), in SPDX 2.3: Debian's packages and Python's."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import quote

UNKNOWN = "NOASSERTION"


def document(name: str, debian: Sequence[Mapping[str, str]], site: Path, epoch: int) -> dict[str, object]:
    """The image's document, for these Debian packages, and for the Python packages installed in a folder."""
    packages = [*map(_debian, debian), *_python(site)]
    packages.sort(key=lambda package: str(package["SPDXID"]))
    # The name space is to be unique to the contents; a hash of them is, and is the same in each build.
    contents = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://github.com/confidential-gpu/ansible-collection/spdx/{name}-{contents}",
        "creationInfo": {
            "created": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: tools/sbom.py"],
        },
        "packages": [_package(name, "dev", "", UNKNOWN), *packages],
        "relationships": [
            _relation("SPDXRef-DOCUMENT", "DESCRIBES", f"SPDXRef-{name}"),
            *(_relation(f"SPDXRef-{name}", "CONTAINS", str(package["SPDXID"])) for package in packages),
        ],
    }


def _debian(one: Mapping[str, str]) -> dict[str, object]:
    version, architecture = quote(one["version"], safe=""), one["architecture"]
    purl = f"pkg:deb/debian/{one['name']}@{version}?arch={architecture}&distro=trixie"
    return _package(one["name"], one["version"], purl, UNKNOWN, prefix="deb-")


def _python(site: Path) -> Iterator[dict[str, object]]:
    for found in distributions(path=[str(site)]):
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        licence = (found.metadata.get_all("License-Expression") or [UNKNOWN])[0]
        yield _package(name, found.version, f"pkg:pypi/{name}@{found.version}", licence, prefix="pypi-")


def _package(name: str, version: str, purl: str, licence: str, prefix: str = "") -> dict[str, object]:
    package: dict[str, object] = {
        "SPDXID": f"SPDXRef-{prefix}{re.sub(r'[^A-Za-z0-9.-]', '-', name)}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": licence,
        "copyrightText": UNKNOWN,
    }
    if purl:
        reference = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}
        package["externalRefs"] = [reference]
    return package


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
