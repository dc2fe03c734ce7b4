# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Lists of contents (SBOM) in CycloneDX 1.6: of an image with Debian's packages and Python's, and of the collection.

Equal contents give an equal document: its number is a hash of them, its time is the build's.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

LICENCE = "Apache-2.0"


def of_image(name: str, version: str, debian: Sequence[Mapping[str, str]], site: Path, epoch: int) -> str:
    """An image's document, for these Debian packages, and for the Python packages installed in a folder."""
    root = _component(name, version, PackageURL("oci", name=name), LICENCE, ComponentType.CONTAINER)
    return _document(root, [*map(_debian, debian), *_python(site)], epoch)


def of_collection(galaxy: Mapping[str, Any], artifact: Path, needs: Iterable[str], epoch: int) -> str:
    """The collection's document: the artifact with its hash, and what it needs by lines "name==version" of a lock."""
    name, version = "{namespace}.{name}".format_map(galaxy), str(galaxy["version"])
    root = _component(name, version, PackageURL("generic", name=name, version=version), LICENCE)
    root.hashes = [HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(artifact.read_bytes()).hexdigest())]
    parts = []
    for need in needs:
        package, _, pinned = need.partition("==")
        parts.append(_component(package, pinned, PackageURL("pypi", name=package, version=pinned), None))
    return _document(root, parts, epoch)


def _document(root: Component, parts: Iterable[Component], epoch: int) -> str:
    bom = Bom(components=parts, metadata=BomMetaData(component=root, timestamp=datetime.fromtimestamp(epoch, UTC)))
    bom.register_dependency(root, bom.components)
    # The number is to be unique to the contents; a hash of them is, and is the same in each build.
    bom.serial_number = uuid.UUID(int=0)
    contents = JsonV1Dot6(bom).output_as_string()
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_OID, contents)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _debian(one: Mapping[str, str]) -> Component:
    qualifiers = {"arch": one["architecture"], "distro": "trixie"}
    purl = PackageURL("deb", "debian", one["name"], one["version"], qualifiers)
    part = _component(one["name"], one["version"], purl, None)
    # Security trackers go by the name of the source package.
    part.properties = [Property(name="debian:source", value=one["source"])]
    return part


def _python(site: Path) -> Iterator[Component]:
    for found in distributions(path=[str(site)]):
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        licence = (found.metadata.get_all("License-Expression") or [None])[0]
        yield _component(name, found.version, PackageURL("pypi", name=name, version=found.version), licence)


def _component(
    name: str,
    version: str,
    purl: PackageURL,
    licence: str | None,
    kind: ComponentType = ComponentType.LIBRARY,
) -> Component:
    licences: list[License] = [LicenseFactory().make_from_string(licence)] if licence else []
    # Without a reference of its own the library takes a random one.
    return Component(name=name, version=version, purl=purl, bom_ref=str(purl), type=kind, licenses=licences)
