# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a command line lacks, by what the kernel makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired, join, split
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest
from ansible_collections.confidential.gpu.plugins.module_utils._host import parameters

TDX_LINE = "intel_iommu=on kvm_intel.tdx=1 nohibernate"


def desired(
    line: str,
    technology: str,
    running: str | None = None,
    vendor: str = "",
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
) -> Desired:
    asked = Desired(tuple(add), tuple(remove))
    return parameters.desired(asked, technology, vendor, split(line), split(line if running is None else running))


def mended(line: str, technology: str, **rest: Any) -> str:
    return join(desired(line, technology, **rest).applied(split(line)))


@pytest.mark.parametrize(
    ("technology", "line"),
    [
        ("snp", "quiet amd_iommu=on"),
        ("snp", "iommu=nopt,soft iommu.passthrough=off"),
        ("snp", "iommu=pt iommu=nopt"),
        ("snp", "iommu.passthrough=1 iommu=nopt"),
        ("snp", "iommu=pt iommu.passthrough=FALSE"),
        ("snp", "iommu=usedac,pt"),
        ("snp", "iommu=usedac,off"),
        ("snp", "amd_iommu=pgtbl_v2,pgtbl_v1"),
        ("snp", "amd_iommu=pgtbl_v2 amd_iommu=pgtbl_v1"),
        ("snp", "kvm_amd.sev_snp=off kvm-amd.sev_snp"),
        ("snp", "sev=debug,nosnpx intel_iommu=off"),
        ("snp", "iommu.passthrough iommu.passthrough=maybe"),
        ("snp", "modprobe.blacklist=vfio_pci"),
        ("snp", "quiet -- iommu=off"),
        ("tdx", TDX_LINE),
        ("tdx", "intel_iommu=on,sm_on kvm_intel.tdx=y hibernate=no"),
        ("tdx", "intel_iommu=sm_on,on kvm-intel.tdx nohibernate"),
        ("tdx", "intel_iommu=off intel_iommu=on kvm_intel.tdx=0 kvm_intel.tdx=True nohibernate"),
        ("tdx", TDX_LINE + " iommu=pt amd_iommu=off"),
        ("tdx", TDX_LINE + " kvm.tdp_mmu=0 kvm.tdp_mmu=1"),
        ("passthrough", "iommu=pt amd_iommu=pgtbl_v2 kvm_amd.sev_snp=0"),
    ],
)
def test_what_has_the_effect_stays_as_it_is_and_needs_no_reboot(technology, line):
    found = desired(line, technology)
    assert found.applied(split(line)) == split(line)
    assert found.unmet(split(line)) == []


@pytest.mark.parametrize(
    ("technology", "line", "after"),
    [
        ("snp", "iommu=pt,nobypass quiet", "quiet iommu=nobypass"),
        ("snp", 'iommu="pt,nobypass" quiet', "quiet iommu=nobypass"),
        ("snp", "iommu=pt quiet", "quiet"),
        ("snp", "iommu=off,pt,soft", "iommu=soft"),
        ("snp", "iommu=off,pt iommu=nopt", "iommu=nopt"),
        ("snp", "iommu=nopt,pt", "iommu=nopt"),
        ("snp", "amd_iommu=on,pgtbl_v2", "amd_iommu=on"),
        ("snp", "amd_iommu=off amd_iommu=on", "amd_iommu=on"),
        ("snp", "iommu.passthrough=true", ""),
        ("snp", "iommu.passthrough=Yes iommu.passthrough=on", ""),
        ("snp", "iommu.passthrough=enable", ""),
        ("snp", "kvm_amd.sev_snp=off kvm_amd.sev=n kvm-amd.sev_es=0", ""),
        ("snp", "kvm_amd.sev_snp=maybe kvm_amd.sev_es=odd,1", ""),
        ("snp", "sev=debug,nosnp", "sev=debug"),
        ("snp", "kvm_amd.npt=0 kvm_amd.nrips=0 kvm.mmio_caching=0", ""),
        ("tdx", "quiet", "quiet " + TDX_LINE),
        ("tdx", "intel_iommu=off,sm_on", "intel_iommu=sm_on " + TDX_LINE),
        ("tdx", "intel_iommu=on intel_iommu=off kvm_intel.tdx nohibernate", "intel_iommu=on kvm_intel.tdx nohibernate"),
        ("tdx", TDX_LINE + " kvm_intel.tdx=off", TDX_LINE),
        ("tdx", TDX_LINE + " kvm_intel.tdx=enable", TDX_LINE),
        (
            "tdx",
            TDX_LINE.replace("nohibernate", "hibernate=noresume"),
            "intel_iommu=on kvm_intel.tdx=1 hibernate=noresume nohibernate",
        ),
        ("tdx", "hibernate=nocompress", "hibernate=nocompress " + TDX_LINE),
        ("tdx", TDX_LINE + " kvm_intel.ept=0 kvm.tdp_mmu=n kvm_intel.eptad=0 kvm_intel.enable_apicv=0", TDX_LINE),
        ("tdx", "a -- " + TDX_LINE, "a %s -- %s" % (TDX_LINE, TDX_LINE)),
        ("passthrough", "iommu=off amd_iommu=off intel_iommu=off", ""),
    ],
)
def test_what_lacks_is_added_and_only_what_harms_goes(technology, line, after):
    assert mended(line, technology) == after
    assert mended(after, technology) == after


def test_passthrough_needs_a_parameter_on_intel_only():
    assert mended("quiet", "passthrough") == "quiet"
    assert mended("quiet", "passthrough", vendor="AuthenticAMD") == "quiet"
    assert mended("quiet", "passthrough", vendor="GenuineIntel") == "quiet intel_iommu=on"
    assert mended("intel_iommu=on,sm_on", "passthrough", vendor="GenuineIntel") == "intel_iommu=on,sm_on"


def test_a_boot_loader_that_is_right_already_is_not_changed_for_a_running_kernel_that_is_not():
    configured = split("kvm_intel.tdx=y hibernate=no intel_iommu=on,sm_on")
    for running in ("quiet", "intel_iommu=off", join(configured) + " intel_iommu=off"):
        found = desired(join(configured), "tdx", running)
        assert found.applied(configured) == configured
        assert found.unmet(split(running)) != []
    swapped = desired("iommu=pt,soft iommu=nopt", "snp", "iommu=nopt iommu=pt,soft")
    assert swapped.applied(["iommu=pt,soft", "iommu=nopt"]) == ["iommu=nopt", "iommu=soft"]
    found = desired("quiet", "snp", "quiet iommu=pt,nobypass")
    assert (found.applied(["quiet"]), found.unmet(["iommu=pt,nobypass"])) == (
        ["quiet"],
        ["iommu=pt,nobypass is present"],
    )


def test_a_running_kernel_that_is_right_does_not_hide_a_boot_loader_that_is_not():
    found = desired("iommu=pt", "snp", "quiet")
    assert found.applied(["iommu=pt"]) == []
    assert found.unmet(["quiet"]) == []


def test_further_parameters_are_counted_as_if_they_were_there():
    assert mended("", "tdx", add=["intel_iommu=on,sm_on", "hugepages=4"]) == (
        "intel_iommu=on,sm_on kvm_intel.tdx=1 nohibernate hugepages=4"
    )
    assert mended("quiet splash", "snp", remove=["splash"]) == "quiet"


def test_other_entries_of_the_boot_loader_are_asked_for_the_same():
    assert desired("quiet", "snp").applied(["iommu=pt", "amd_iommu=off", "kvm_amd.sev_snp=0", "quiet"]) == ["quiet"]
    assert desired(TDX_LINE, "tdx").applied(["intel_iommu=off"]) == split(TDX_LINE)


def test_what_the_technology_needs_cannot_be_taken_away():
    with pytest.raises(InvalidRequest, match="remove asks for intel_iommu"):
        desired("quiet", "tdx", remove=["intel_iommu"])


@pytest.mark.parametrize(
    ("vendor", "technology"),
    [("GenuineIntel", "tdx"), ("AuthenticAMD", "snp"), ("", "passthrough"), ("x", "passthrough")],
)
def test_what_a_processor_offers(vendor, technology):
    assert parameters.technology_of(vendor) == technology


VALUES = {
    "iommu": ["pt", "nopt", "off", "soft", "pt,nobypass", "off,pt", "nopt,pt", "pt,nopt", "usedac,off"],
    "iommu.passthrough": ["1", "0", "true", "off", "no", "odd"],
    "amd_iommu": ["on", "off", "pgtbl_v1", "pgtbl_v2", "on,pgtbl_v2", "pgtbl_v2,pgtbl_v1"],
    "intel_iommu": ["on", "off", "on,sm_on", "off,sm_on", "sm_on", "on,off", "off,on"],
    "kvm_amd.sev_snp": ["1", "0", "off", "Y", "odd"],
    "kvm_amd.sev_es": ["1", "n"],
    "kvm-intel.tdx": ["1", "0", "y", "False", "odd"],
    "kvm.mmio_caching": ["0", "1"],
    "sev": ["nosnp", "debug,nosnp", "debug"],
    "hibernate": ["no", "noresume", "nocompress"],
    "quiet": [""],
}
TOKENS = st.one_of(
    st.sampled_from(
        ["nohibernate", "kvm_intel.tdx", "iommu", "iommu.passthrough", "--", "quiet", "module_blacklist=x"]
    ),
    st.sampled_from([(name, value) for name, values in VALUES.items() for value in values]).map("=".join),
)
LINES = st.lists(TOKENS, max_size=7).map(lambda tokens: tokens[: tokens.index("--") + 2] if "--" in tokens else tokens)


@settings(max_examples=400, deadline=None)
@given(technology=st.sampled_from(["snp", "tdx", "passthrough"]), configured=LINES, running=LINES)
def test_after_the_edits_the_kernel_has_what_is_needed_and_a_second_run_changes_nothing(
    technology, configured, running
):
    needed = parameters.settings(technology, parameters.INTEL)
    found = Desired(*parameters.edits(needed, configured, running))
    after = found.applied(configured)
    assert all(setting.met(after) for setting in needed)
    assert parameters.harmful(needed, after) == []
    # A reboot is asked for exactly until the running kernel has what is needed, too.
    if not found.unmet(running):
        assert all(setting.met(running) for setting in needed)
    again = Desired(*parameters.edits(needed, after, after))
    assert again.applied(after) == after
    assert again.unmet(after) == []
    if all(setting.met(configured) for setting in needed) and all(setting.met(running) for setting in needed):
        assert after == configured
    # What is none of these parameters stays, in its order.
    others = [token for token in configured if token.partition("=")[0] in ("quiet", "--", "module_blacklist")]
    assert [token for token in after if token.partition("=")[0] in ("quiet", "--", "module_blacklist")] == others
