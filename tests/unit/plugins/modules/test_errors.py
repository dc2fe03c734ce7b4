# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Every error of the collection hangs on one tree and has one shape."""

from __future__ import annotations

from types import ModuleType

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._bmm import errors as bmm
from ansible_collections.confidential.gpu.plugins.module_utils._boot import errors as boot
from ansible_collections.confidential.gpu.plugins.module_utils._core import errors as core
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import errors as gpu
from ansible_collections.confidential.gpu.plugins.module_utils._pci import errors as pci


@pytest.mark.parametrize("module", [bmm, boot, core, gpu, pci], ids=["bmm", "boot", "core", "gpu", "pci"])
def test_all_errors_have_one_root_and_one_shape(module: ModuleType) -> None:
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 4
    for kind in kinds:
        assert issubclass(kind, ExplainedError)
        if kind is not core.Several:
            error = kind("Cause.", "Remedy.", "State.", device="x")
            assert str(error) == "Cause. State. Remedy."
            assert error.as_dict() == {
                "kind": kind.__name__,
                "cause": "Cause.",
                "state": "State.",
                "remedy": "Remedy.",
                "retryable": kind.retryable,
                "seen": {"device": "x"},
            }


def test_what_may_pass_by_itself_is_retryable() -> None:
    kinds = [kind for kind in vars(boot).values() if isinstance(kind, type) and issubclass(kind, boot.BootError)]
    assert {kind.__name__ for kind in kinds if kind.retryable} == {"CommandTimeout", "Interrupted"}
