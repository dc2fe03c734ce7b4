#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Make Python of the .proto files below container/device_plugin/api: messages, their types, and grpclib's services.

Needs the network once: the compiler has an environment of its own in .cache. Each file that is made says from which
.proto text it was, so that a test finds one that is old.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# The compiler's messages run with this protobuf and the next major release of it.
PACKAGES = ("grpcio-tools==1.85.1", "grpclib==0.4.9")
ROOT = Path(__file__).resolve().parent.parent
FOLDER = "device_plugin/api"
KINDS = ("_pb2.py", "_pb2.pyi", "_grpc.py")
HEADER = """\
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
#
# Made by `make api` from {name}, sha256 {digest}.

"""


def main() -> int:
    """Write the files beside each .proto."""
    tools = ROOT / ".cache" / "api"
    if not (tools / "bin" / "protoc-gen-grpclib_python").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", tools], check=True)
        subprocess.run([tools / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    source = ROOT / "container"
    for proto in sorted((source / FOLDER).glob("*.proto")):
        with tempfile.TemporaryDirectory() as out:
            command: list[str | Path] = [tools / "bin" / "python", "-m", "grpc_tools.protoc", f"-I{source}"]
            command += [f"--python_out={out}", f"--pyi_out={out}", f"--grpclib_python_out={out}", proto]
            # The compiler looks for its plugins there.
            path = f"{tools / 'bin'}:{os.environ.get('PATH', '')}"
            subprocess.run(command, env={**os.environ, "PATH": path}, check=True)
            header = HEADER.format(name=proto.name, digest=digest(proto))
            for made in sorted(Path(out, FOLDER).iterdir()):
                proto.with_name(made.name).write_text(header + made.read_text())
        print(f"{proto.relative_to(ROOT)}: {digest(proto)[:12]}")
    return 0


def digest(proto: Path) -> str:
    """The hash of a file's text."""
    return hashlib.sha256(proto.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
