# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a host offers: every answer, on a tree of /sys."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._gpu.host import facts

TDX = "sys/module/kvm_intel/parameters/tdx"
SNP = "sys/module/kvm_amd/parameters/sev_snp"
LOCKDOWN = "sys/kernel/security/lockdown"


@pytest.mark.parametrize(
    ("name", "file", "content", "value", "seen", "reason"),
    [
        ("tdx", TDX, "Y\n", "yes", "kvm_intel.tdx=Y", ""),
        ("tdx", TDX, "N\n", "no", "kvm_intel.tdx=N", "switched off"),
        ("tdx", "sys/module/kvm_intel/refcnt", "0", "no", "kvm_intel.tdx is absent", "too old"),
        ("tdx", "sys/module/kvm/refcnt", "0", "unknown", "kvm_intel is not loaded", "not loaded"),
        ("sev_snp", SNP, "1\n", "yes", "kvm_amd.sev_snp=1", ""),
        ("sev_snp", SNP, "0\n", "no", "kvm_amd.sev_snp=0", "switched off"),
        ("sev_snp", "sys/module/kvm_amd/refcnt", "0", "no", "kvm_amd.sev_snp is absent", "too old"),
        ("sev_snp", "sys/module/kvm/refcnt", "0", "unknown", "kvm_amd is not loaded", "not loaded"),
        ("iommu", "sys/kernel/iommu_groups/0/type", "DMA", "yes", "1 groups", ""),
        ("iommu", "sys/kernel/notes", "", "no", "0 groups", "no device can be given"),
        ("lockdown", LOCKDOWN, "[none] integrity\n", "no", "[none] integrity", ""),
        ("lockdown", LOCKDOWN, "none [integrity]\n", "yes", "none [integrity]", "locked down"),
        ("lockdown", "sys/kernel/notes", "", "unknown", "", "does not say"),
    ],
)
def test_facts(host: Any, name: str, file: str, content: str, value: str, seen: str, reason: str) -> None:
    host.write(file, content)
    found: Any = facts(str(host.root))
    fact = found[name]
    assert (fact["value"], fact["seen"]) == (value, seen)
    assert reason in fact["reason"]
    assert bool(reason) == bool(fact["reason"])
    if value == "no" and reason:
        assert fact["remedy"]


def test_an_empty_folder_of_groups_is_no_iommu(host: Any) -> None:
    (host.root / "sys/kernel/iommu_groups").mkdir(parents=True)
    assert facts(str(host.root))["iommu"]["value"] == "no"


def test_remedies_name_the_switch() -> None:
    seen = facts("/nonexistent")
    assert "kvm_intel.tdx=1" in seen["tdx"]["remedy"]
    assert "SEV-SNP" in seen["sev_snp"]["remedy"]
    assert "intel_iommu=on" in seen["iommu"]["remedy"]
