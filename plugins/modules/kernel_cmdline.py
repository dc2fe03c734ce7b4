#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kernel_cmdline
short_description: Set parameters of the kernel command line, whatever the boot loader
version_added: 0.1.0
description:
  - Adds, removes and replaces parameters of the kernel command line, as sets of tokens. Everything else that stands on
    the command line stays as it is, in its order.
  - Finds the program that makes what boots, changes its files or runs its command, lets it check its own configuration,
    and reads back what will be booted. When that cannot be read, nothing is changed.
  - When anything fails, every file is put back as it was; the error says so. Files are replaced as a whole, never
    written in place.
  - One run at a time changes a host. A second one is refused, with an error that is retryable.
  - As in the kernel, C(-) and C(_) are the same in a parameter's name, and quotes around a value are not part of it.
  - The change is in force after a reboot, which this module does not make; RV(reboot_required) says whether the running
    kernel differs from what is asked for.
author:
  - confidential.gpu contributors (@confidential-gpu)
options:
  add:
    description:
      - Tokens that shall be there, such as V(intel_iommu=on). Other values of the same parameter stay, as
        V(console=tty0) beside V(console=ttyS0).
      - A value with spaces has double quotes around it, as in V(name="first second").
    type: list
    elements: str
    default: []
  remove:
    description:
      - Tokens that shall not be there. V(name=value) is exactly that one, V(name) is every value of the parameter.
      - They are removed wherever they stand, in the distribution's own files too. Wildcards are not supported.
    type: list
    elements: str
    default: []
  replace:
    description:
      - Tokens V(name=value) that shall be the only value of their parameter. The first takes the place of the first
        value that is there, the others are removed.
    type: list
    elements: str
    default: []
  technology:
    description:
      - What the host is for. What the kernel needs for it is asked for beside O(add), O(remove) and O(replace).
      - V(tdx) is Intel TDX, V(snp) is AMD SEV-SNP, V(passthrough) is devices for virtual machines without either.
        V(auto) takes V(tdx) on Intel, V(snp) on AMD, V(passthrough) elsewhere.
      - Parameters are judged by what the kernel makes of them - comma lists, its booleans, later ones that win over
        earlier ones. What has the effect already stays as it is spelled and asks for no reboot; of a comma list only
        the members go that do harm.
    type: str
    choices: [auto, tdx, snp, passthrough]
  loader:
    description:
      - The boot loader, or the way in which the distribution keeps its command line; V(auto) finds it.
      - V(grub-dropin) is C(/etc/default/grub.d) with C(update-grub), of Debian and Ubuntu.
      - V(grub) is C(/etc/default/grub) with C(update-bootloader) or C(grub2-mkconfig), of SUSE and others.
      - V(grubby) is that of RHEL, Rocky Linux and Fedora, for the kernels that are there and those to come. Their files
        are changed without the command, which cannot express every change.
      - V(kernel-install) is C(/etc/kernel/cmdline) with C(kernel-install), of systemd-boot and unified kernel images.
      - V(sdbootutil) is C(/etc/kernel/cmdline) and C(/etc/kernel/cmdline.d) with C(sdbootutil), of openSUSE with
        systemd-boot or C(grub2-bls).
      - V(proxmox-boot-tool) is Proxmox whose boot partitions C(proxmox-boot-tool) writes - C(/etc/kernel/cmdline) with
        systemd-boot, C(/etc/default/grub.d) with GRUB.
      - V(transactional-update) is SUSE Linux Micro, V(rpm-ostree) is Fedora CoreOS and its kin, V(kernelstub) is
        Pop!_OS, V(flatcar) is C(grub.cfg) of Flatcar's OEM partition.
      - A node of OpenShift is refused; its cluster keeps the parameters in MachineConfig objects.
      - V(bootc) is C(/usr/lib/bootc/kargs.d), for building an image. On a host that was booted from one, arguments that
        are not there yet are refused.
      - A host whose entries another program makes is refused by the name of that program, such as Limine, rEFInd,
        ZFSBootMenu, C(extlinux.conf), unified images of C(mkinitcpio), C(dracut) or a package, another layout of
        C(kernel-install). A named loader has to be the one that makes what boots, too.
    type: str
    choices:
      - auto
      - flatcar
      - rpm-ostree
      - bootc
      - proxmox-boot-tool
      - sdbootutil
      - transactional-update
      - kernelstub
      - kernel-install
      - grubby
      - grub-dropin
      - grub
    default: auto
  backup:
    description: Whether to keep a copy of every file that is changed, beside it, with a time stamp in its name.
    type: bool
    default: true
  timeout:
    description: Seconds that each command of the boot loader may take.
    type: float
    default: 600
attributes:
  check_mode:
    support: full
    description: Shows what a real run would change. Commands that only read are run, nothing is written.
  diff_mode:
    support: full
    description: Shows the command line, one token a line, and every file.
  idempotent:
    support: full
    description: Nothing is written or run when the boot loader has what is asked for.
  platform:
    support: full
    platforms: linux
    description: Needs root.
requirements:
  - Python 3.9 or later on the host
seealso:
  - name: The kernel's command-line parameters
    description: What the parameters mean.
    link: https://docs.kernel.org/admin-guide/kernel-parameters.html
"""

EXAMPLES = r"""
- name: A host for confidential virtual machines with Intel TDX, and huge pages
  confidential.gpu.kernel_cmdline:
    technology: tdx
    add: [hugepagesz=1G, hugepages=64]
  register: cmdline

- name: Reboot when the running kernel was started with another command line
  ansible.builtin.reboot:
    reboot_timeout: 2700
  when: cmdline.reboot_required

- name: What the kernel needs for confidential virtual machines on this processor, however it is spelled
  confidential.gpu.kernel_cmdline:
    technology: auto

- name: One value of a parameter, whatever it was
  confidential.gpu.kernel_cmdline:
    replace: [default_hugepagesz=1G]

- name: Tokens of an image that is being built for bootc
  confidential.gpu.kernel_cmdline:
    add: [intel_iommu=on]
    loader: bootc
"""

RETURN = r"""
loader:
  description: The boot loader that was found or named.
  returned: always, except when the request itself is refused
  type: str
  sample: grub-dropin
before:
  description: The command line of what boots by default, before the run.
  returned: when it could be read
  type: str
  sample: root=UUID=0a1b ro quiet iommu=pt
after:
  description:
    - The command line of what boots by default, as read back after the run from what the boot loader reads - an entry,
      an image, a deployment. In check mode, what a real run would bring about.
  returned: success
  type: str
  sample: root=UUID=0a1b ro quiet intel_iommu=on
running:
  description: The command line of the running kernel, from C(/proc/cmdline).
  returned: always, except when the request itself is refused
  type: str
  sample: BOOT_IMAGE=/boot/vmlinuz-6.17 root=UUID=0a1b ro quiet
reboot_required:
  description:
    - Whether the running kernel's command line differs from what is asked for - a token to have is missing there, or
      one not to have is present. Differences in anything else do not count.
  returned: always, except when the request itself is refused
  type: bool
  sample: true
technology:
  description: What the host is for, as named or found.
  returned: with O(technology), except when the request itself is refused
  type: str
  sample: tdx
host:
  description:
    - What the running kernel offers to virtual machines, as M(confidential.gpu.cc_mode_info) returns it - for each of
      C(tdx), C(sev_snp), C(iommu) and C(lockdown) a value, what was seen, a reason and a remedy.
  returned: with O(technology), except when the request itself is refused
  type: dict
  sample:
    iommu: {value: "no", seen: 0 groups, reason: The IOMMU is off., remedy: Enable VT-d or AMD-Vi.}
backup_files:
  description: Copies of the files as they were.
  returned: always, except when the request itself is refused
  type: list
  elements: str
  sample: ["/etc/default/grub.4711.2026-01-31@12:00:00~"]
commands:
  description: The boot loader's commands that changed or checked its configuration; in check mode, those that would.
  returned: when the configured command line could be read
  type: list
  elements: list
  sample: [[update-grub], [grub-script-check, /boot/grub/grub.cfg]]
error:
  description: The error as data - kind, cause, state of the host, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample:
    kind: CommandFailed
    cause: "update-grub ended with 1 and said: syntax error."
    state: Every file was put back as it was.
    remedy: Correct what it complains about, then run again.
    retryable: false
    seen: {command: [update-grub], code: 1, said: syntax error}
"""

import signal
from pathlib import Path
from typing import Any, NoReturn, Optional, Sequence

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired
from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import AUTO, NAMES, Configuration
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import Interrupted
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Host
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError

# What technology names, as parameters.TECHNOLOGIES, which is imported only where it is asked for.
TECHNOLOGIES = ("auto", "tdx", "snp", "passthrough")

STOPS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def main(root: str = "/") -> None:
    """Run as an Ansible module, on the files below ``root``."""
    module = AnsibleModule(
        argument_spec={
            "add": {"type": "list", "elements": "str", "default": []},
            "remove": {"type": "list", "elements": "str", "default": []},
            "replace": {"type": "list", "elements": "str", "default": []},
            "technology": {"type": "str", "choices": list(TECHNOLOGIES)},
            "loader": {"type": "str", "choices": [AUTO, *NAMES], "default": AUTO},
            "backup": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 600},
        },
        supports_check_mode=True,
    )
    given = module.params
    for number in STOPS:
        signal.signal(number, _interrupted)
    configuration = purpose = None
    try:
        desired = Desired(tuple(given["add"]), tuple(given["remove"]), tuple(given["replace"]))
        purpose = Purpose(given["technology"], desired, Path(root)) if given["technology"] else None
        host = Host(Path(root), timeout_s=given["timeout"])
        configuration = Configuration(host, desired, given["loader"], purpose.desired if purpose else None)
        configuration.run(only_plan=module.check_mode, keep_backups=given["backup"])
    except ExplainedError as error:
        _module.fail(module, error, changed=False, **_result(configuration, purpose))
    module.exit_json(changed=configuration.is_change, diff=configuration.diff(), **_result(configuration, purpose))


class Purpose:
    """What the host is for, and what its kernel needs for that."""

    def __init__(self, technology: str, asked: Desired, root: Path) -> None:
        # Here, and not above: a host compiles again at each run what a module imports.
        from ansible_collections.confidential.gpu.plugins.module_utils._host import (  # noqa: PLC0415
            parameters,
            processor,
        )

        self._parameters = parameters
        self._asked = asked
        self._root = root
        self._vendor = processor.read(root).vendor
        self.technology = parameters.technology_of(self._vendor) if technology == AUTO else technology

    def desired(self, configured: Sequence[str], running: Sequence[str]) -> Desired:
        """What is asked for, and what the technology needs beside it."""
        return self._parameters.desired(self._asked, self.technology, self._vendor, configured, running)

    def result(self) -> dict[str, Any]:
        """The technology, and what the running kernel offers."""
        from ansible_collections.confidential.gpu.plugins.module_utils._gpu import host  # noqa: PLC0415

        return {"technology": self.technology, "host": host.facts(str(self._root))}


def _result(configuration: Optional[Configuration], purpose: Optional[Purpose]) -> dict[str, Any]:
    return {**(configuration.result() if configuration else {}), **(purpose.result() if purpose else {})}


def _interrupted(number: int, _frame: object) -> NoReturn:
    """A lost connection or a stop ends the run as an error does: what it began is put back, undisturbed."""
    for other in STOPS:
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted("The run was stopped by %s." % signal.Signals(number).name, "Run again.")


if __name__ == "__main__":
    main()
