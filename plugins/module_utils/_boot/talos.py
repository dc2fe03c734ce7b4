# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Talos Linux has no shell to change it from: the same requests as documents of its machine configuration.

On hosts that boot a unified kernel image Talos takes the kernel parameters from the image, so they are given as a
schematic of Image Factory too.

Facts: Talos' own config.schema.json of releases 1.11 to 1.14, and the pages of its documentation on NVIDIA GPUs.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional, Sequence

from .cmdline import Desired

Release = tuple[int, int]
Document = dict[str, Any]

# The first release that has documents of their own for modules, sysctls and the runtime. In it machine.kernel,
# machine.sysctls, machine.files and machine.install are deprecated, and its schema does not have them.
DOCUMENTS: Release = (1, 14)
# Up to this release the container toolkit's extension needs a sysctl; later ones inject devices by CDI.
LAST_WITH_HOOK: Release = (1, 12)
NVIDIA_MODULES = ("nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset")
HOOK_SYSCTLS = {"net.core.bpf_jit_harden": "1"}
# Merged into containerd's configuration by the name's order; the file is what 1.14 calls "customization".
RUNTIME_FILE = "/etc/cri/conf.d/20-customization.part"
RUNTIME_NAME = "20-default-runtime"
KERNEL_MODULES = {"open": "nvidia-open-gpu-kernel-modules", "nonfree": "nonfree-kmod-nvidia"}


class Node(NamedTuple):
    """What a node shall be. ``modules``: name to parameters; ``runtime``: of pods that name none, or empty."""

    desired: Desired
    modules: Mapping[str, Sequence[str]]
    devices: Sequence[str]
    driver: str
    sysctls: Mapping[str, str]
    runtime: str


def kernel_arguments(desired: Desired) -> list[str]:
    """Parameters as Talos has them: a leading ``-`` removes a value, or all values of a name."""
    removed = ["-%s" % token for token in dict.fromkeys(desired.remove)]
    replaced = [word for token in dict.fromkeys(desired.replace) for word in ("-%s" % token.partition("=")[0], token)]
    return [*removed, *replaced, *dict.fromkeys(desired.add)]


def sysctls_for_containers(release: Release) -> dict[str, str]:
    """What the container toolkit's extension needs in this release."""
    return dict(HOOK_SYSCTLS) if release <= LAST_WITH_HOOK else {}


def extensions(branch: str, kernel_modules: str, fabric_manager: bool) -> list[str]:
    """Image Factory's names. All are of one branch: driver, toolkit and fabric manager have to have one version."""
    names = ["nvidia-container-toolkit", KERNEL_MODULES[kernel_modules]]
    names += ["nvidia-fabricmanager"] if fabric_manager else []
    return ["siderolabs/%s-%s" % (name, branch) for name in names]


def patch(node: Node, release: Optional[Release]) -> list[Document]:
    """The documents of a machine-configuration patch; without a release in the form of those before 1.14."""
    if release is not None and release >= DOCUMENTS:
        documents = _documents(node)
    else:
        machine = _machine(node)
        documents = [{"machine": machine}] if machine else []
    return documents + [
        _document("PCIDriverRebindConfig", name=device, targetDriver=node.driver) for device in node.devices
    ]


def schematic(desired: Desired, system_extensions: Sequence[str] = ()) -> list[Document]:
    """The one document of a schematic for Image Factory."""
    arguments = kernel_arguments(desired)
    customization: Document = {}
    if arguments or not system_extensions:
        customization["extraKernelArgs"] = arguments
    if system_extensions:
        customization["systemExtensions"] = {"officialExtensions": list(system_extensions)}
    return [{"customization": customization}]


def _documents(node: Node) -> list[Document]:
    """From 1.14 on. Kernel parameters have no document: they are the image's."""
    made = [_document("KernelModuleConfig", **_module(name, words)) for name, words in node.modules.items()]
    if node.sysctls:
        made.append(_document("SysctlConfig", params=dict(node.sysctls)))
    if node.runtime:
        made.append(_document("CRICustomizationConfig", name=RUNTIME_NAME, content=_default_runtime(node.runtime)))
    return made


def _machine(node: Node) -> Document:
    """Up to 1.13."""
    machine: Document = {}
    arguments = kernel_arguments(node.desired)
    if arguments:
        machine["install"] = {"extraKernelArgs": arguments}
    if node.modules:
        machine["kernel"] = {"modules": [_module(name, words) for name, words in node.modules.items()]}
    if node.sysctls:
        machine["sysctls"] = dict(node.sysctls)
    if node.runtime:
        content = _default_runtime(node.runtime)
        machine["files"] = [{"op": "create", "path": RUNTIME_FILE, "content": content}]
    return machine


def _document(kind: str, **fields: Any) -> Document:
    return {"apiVersion": "v1alpha1", "kind": kind, **fields}


def _module(name: str, parameters: Sequence[str]) -> Document:
    return {"name": name, "parameters": list(parameters)} if parameters else {"name": name}


def _default_runtime(name: str) -> str:
    """TOML for containerd 2, which Talos has since 1.9."""
    return '[plugins."io.containerd.cri.v1.runtime".containerd]\ndefault_runtime_name = "%s"\n' % name
