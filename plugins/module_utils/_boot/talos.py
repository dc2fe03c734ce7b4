# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Talos Linux has no shell to change it from: the same wishes as documents of its machine configuration.

On hosts that boot a unified kernel image Talos takes the kernel parameters from the image, so they are given as a
schematic of Image Factory too.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from .cmdline import Wish


def kernel_arguments(wish: Wish) -> list[str]:
    """Parameters as Talos has them: a leading ``-`` removes a value, or all values of a name."""
    removed = ["-%s" % token for token in dict.fromkeys(wish.remove)]
    replaced = [word for token in dict.fromkeys(wish.replace) for word in ("-%s" % token.partition("=")[0], token)]
    return [*removed, *replaced, *dict.fromkeys(wish.add)]


def patch(
    wish: Wish, modules: Mapping[str, Sequence[str]], devices: Sequence[str], driver: str
) -> list[dict[str, Any]]:
    """The documents of a machine-configuration patch."""
    machine: dict[str, Any] = {}
    arguments = kernel_arguments(wish)
    if arguments:
        machine["install"] = {"extraKernelArgs": arguments}
    if modules:
        machine["kernel"] = {
            "modules": [
                {"name": name, "parameters": list(parameters)} if parameters else {"name": name}
                for name, parameters in modules.items()
            ]
        }
    documents: list[dict[str, Any]] = [{"machine": machine}] if machine else []
    for device in devices:
        documents.append(
            {"apiVersion": "v1alpha1", "kind": "PCIDriverRebindConfig", "name": device, "targetDriver": driver}
        )
    return documents


def schematic(wish: Wish) -> list[dict[str, Any]]:
    """The one document of a schematic for Image Factory."""
    return [{"customization": {"extraKernelArgs": kernel_arguments(wish)}}]
