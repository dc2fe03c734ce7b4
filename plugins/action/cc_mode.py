# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Run the module cc_mode on the host, and make what it wrote to its fact file known to the rest of the play.

Gathering local facts again would tell the same, for as long as half a second a host.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """The module's own action: everything happens on the host."""

    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result, with ``ansible_local.confidential_gpu`` as a fact when a fact file was written."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        in_background = bool(self._task.async_val)
        result.update(self._execute_module(task_vars=variables, wrap_async=in_background))
        if self._task.args.get("fact_file") and not self._task.check_mode and "fact" in result:
            others = variables.get("ansible_facts", {}).get("ansible_local") or {}
            result["ansible_facts"] = {"ansible_local": {**others, "confidential_gpu": result["fact"]}}
        return result
