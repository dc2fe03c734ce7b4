# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The check of import layers: each rule can fail, and what is allowed passes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
GPU = "plugins/module_utils/_gpu/"
PCI = "plugins/module_utils/_pci/"
OURS = "ansible_collections.confidential.gpu.plugins.module_utils._gpu"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("layers", ROOT / "tools" / "layers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["layers"] = module
    spec.loader.exec_module(module)
    return module


layers = _load()

TABLE = layers.Table(
    roots=["plugins/", "emulator/"],
    order={
        GPU: [["errors"], ["bus"], ["admin_tools", "host"], ["plan"]],
        PCI: [["binding"]],
        "emulator/": [["bus", "gpu"], ["chips"], ["server"]],
        "emulator/chips/": [["memory"], ["chip"]],
    },
    below={GPU: ["plugins/module_utils/_errors.py"], PCI: [GPU]},
    only={"ansible": ["plugins/modules/", "plugins/module_utils/_module.py"], "gpu": [GPU + "admin_tools.py"]},
    never={"emulator/": ["ansible_collections", "gpu"]},
    standard_library=["plugins/"],
    computed=[GPU + "admin_tools.py"],
)


def breaches(folder: Path, path: str, source: str) -> list[str]:
    """What the check says of a tree of this one file."""
    (folder / path).parent.mkdir(parents=True)
    (folder / path).write_text(source)
    return [str(breach) for breach in layers.check(folder, TABLE)]


@pytest.mark.parametrize(
    ("path", "source", "rule"),
    [
        (GPU + "bus.py", "\nfrom .plan import x", "2: bus must not import plan"),
        (GPU + "bus.py", "from . import plan", "1: bus must not import plan"),
        (GPU + "bus.py", f"import {OURS}.plan", "1: bus must not import plan"),
        (GPU + "bus.py", f"from {OURS}.plan import x", "1: bus must not import plan"),
        (GPU + "bus.py", "def f():\n    from .plan import x", "2: bus must not import plan"),
        (GPU + "host.py", "from .admin_tools import x", "1: host must not import admin_tools"),
        (GPU + "plan.py", "from . import *", "1: plan imports *, which has no row"),
        (
            GPU + "plan.py",
            "from .. import _module",
            "1: plugins/module_utils/_gpu/ knows only itself and what is below it, not",
        ),
        (GPU + "errors.py", "from .._pci import binding", "1: plugins/module_utils/_gpu/ knows only itself and"),
        (
            PCI + "binding.py",
            "from .._errors import x",
            "1: plugins/module_utils/_pci/ knows only itself and what is below",
        ),
        (GPU + "novel.py", "", "1: novel has no row"),
        (GPU + "plan.py", "from .novel import x", "1: plan imports novel, which has no row"),
        (GPU + "__init__.py", "import os", "1: __init__ of plugins/module_utils/_gpu/ imports nothing"),
        (GPU + "plan.py", "import ansible.module_utils.basic", "1: ansible is imported only by"),
        (GPU + "plan.py", "from ansible.module_utils import basic", "1: ansible is imported only by"),
        ("plugins/module_utils/other.py", "from ansible import x", "1: ansible is imported only by"),
        (GPU + "bus.py", "import gpu", "1: gpu is imported only by"),
        (GPU + "bus.py", "from gpu.prc import PrcKnob", "1: gpu is imported only by"),
        (GPU + "bus.py", "import importlib\nimportlib.import_module('gpu.prc')", "2: gpu is imported only by"),
        ("plugins/modules/m.py", "import importlib\nimportlib.import_module(name)", "2: an import by a computed name"),
        ("plugins/modules/m.py", "import requests", "1: requests is not in the standard library"),
        ("emulator/bus.py", f"from {OURS} import bus", "1: emulator/ must not import ansible_collections"),
        ("emulator/bus.py", "import gpu.prc", "1: emulator/ must not import gpu"),
        ("emulator/chips/chip.py", "from ..server import x", "1: chips must not import server"),
        ("emulator/chips/memory.py", "from .chip import x", "1: memory must not import chip"),
        ("emulator/chips/novel.py", "", "1: novel has no row"),
        ("emulator/bus.py", "from .chips.chip import x", "1: bus must not import chips"),
    ],
)
def test_a_breach_is_named_with_file_line_and_rule(tmp_path: Path, path: str, source: str, rule: str) -> None:
    said = breaches(tmp_path, path, source)
    assert any(line.startswith(f"{path}:{rule}") for line in said), said


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (GPU + "plan.py", "from __future__ import annotations\nimport os\nfrom . import bus\nfrom .errors import x"),
        (GPU + "errors.py", "from .._errors import x"),
        (PCI + "binding.py", "from .._gpu import lock\nfrom .._gpu.bus import x"),
        (GPU + "__init__.py", "from __future__ import annotations"),
        (GPU + "admin_tools.py", "import importlib, gpu.prc\nimportlib.import_module(name)"),
        ("plugins/modules/m.py", f"from ansible.module_utils.basic import AnsibleModule\nfrom {OURS}.plan import x"),
        (
            "plugins/module_utils/_module.py",
            "from ansible.module_utils.basic import AnsibleModule\nfrom ._gpu.bus import x",
        ),
        ("emulator/server.py", "import os\nfrom . import gpu\nfrom .chips import chip"),
        ("emulator/chips/chip.py", "from ..bus import x\nfrom . import memory"),
        ("emulator/chips/__init__.py", "from __future__ import annotations"),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, path: str, source: str) -> None:
    assert breaches(tmp_path, path, source) == []


def test_this_repository_keeps_its_layers() -> None:
    assert layers.check(ROOT, layers.Table.read(ROOT / "pyproject.toml")) == []


def test_the_command_fails_on_a_breach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.layers]\nroots = ["a/"]\n[tool.layers.never]\n"a/" = ["os"]\n')
    (tmp_path / "a").mkdir()
    monkeypatch.setattr(sys, "argv", ["layers", "--root", str(tmp_path)])
    assert layers.main() == 0
    (tmp_path / "a" / "b.py").write_text("import os\n")
    assert layers.main() == 1
    assert "a/b.py:1: a/ must not import os" in capsys.readouterr().out
