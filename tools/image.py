# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Build an image: python -m tools.image [cc-manager | device-plugin | cloud-controller] [--tag NAME] [--out FILE]

Everything that is fetched is fetched here: Debian's packages by mmdebstrap, Python's by hash. container/Containerfile
then copies and compiles. Equal sources give an equal image: times are those of
SOURCE_DATE_EPOCH, by default the last commit's.
The Debian packages are kept in .cache/image; `make clean`, or --fresh, takes the newest.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from packaging.markers import Marker

from tools import cache, debian
from tools.artifact import shipped
from tools.buildah import docker_archive
from tools.needs import NotPossible
from tools.reproducible import source_date_epoch
from tools.sbom import of_image

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "image"
CONTAINER = ROOT / "container"
PYTHON = "3.13"
# The C library of trixie runs wheels made for any of these.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (41, 39, 35, 34, 31, 28, 26, 24, 17)] + ["manylinux2014_x86_64"]
SITE = f"usr/local/lib/python{PYTHON}/dist-packages"
# Where Ansible looks without being told.
COLLECTION = "usr/share/ansible/collections/ansible_collections/confidential/gpu"
# Parts of the collection that the CC manager runs.
COLLECTION_PARTS = ("galaxy.yml", "meta/", "plugins/", "playbooks/cc_mode", "roles/cc_mode/")
SBOM = "usr/share/sbom"
# What is in the Python packages and never runs here.
LEFT_OUT = ("bin", "ansible_test", "*/tests", "kubernetes/e2e_test", "kubernetes/docs", "**/*.pyi", "**/*.c", "**/*.h")
# What all programs share.
SHARED = "kube"
PROGRAM = "from {package}.__main__ import main\n\nsys.exit(main(sys.argv[1:], os.environ))\n"


@dataclass(frozen=True)
class Image:
    """One of the images: a stage of the Containerfile by its name, and what makes it another than the others."""

    name: str
    package: str  # the folder below container/ that runs in it
    lock: str  # below requirements/
    programs: Mapping[str, str]
    max_compressed_bytes: int
    folder: Path = CONTAINER  # of packages.txt
    with_collection: bool = False
    modules: tuple[str, ...] = ()  # of the collection, below plugins/module_utils, that its code imports
    also: tuple[str, ...] = ()  # further folders below container/

    @property
    def packages(self) -> list[str]:
        """Debian's."""
        return list(rows(self.folder / "packages.txt"))

    @property
    def left_out(self) -> str:
        """Patterns of what is left out of them."""
        return "".join((folder / "left-out.txt").read_text() for folder in dict.fromkeys((CONTAINER, self.folder)))

    @property
    def kind(self) -> str:
        """Of its Debian packages in the cache."""
        return "debian" if self.folder == CONTAINER else f"{self.name}-debian"


CC_MANAGER = Image(
    name="cc-manager",
    package="cc_manager",
    lock="cc-manager.txt",
    programs={
        "k8s-cc-manager": PROGRAM.format(package="cc_manager"),
        "kubectl-cc": PROGRAM.format(package="kubectl_cc"),
        "ansible-playbook": "from ansible.cli.playbook import main\n\nsys.exit(main())\n",
    },
    max_compressed_bytes=60 * 1000 * 1000,
    with_collection=True,
    also=("kubectl_cc",),
)
DEVICE_PLUGIN = Image(
    name="device-plugin",
    package="device_plugin",
    lock="device-plugin.txt",
    programs={"device-plugin": PROGRAM.format(package="device_plugin")},
    max_compressed_bytes=25 * 1000 * 1000,
    folder=CONTAINER / "images" / "device-plugin",
)
CLOUD_CONTROLLER = Image(
    name="cloud-controller",
    package="ccm",
    lock="cloud-controller.txt",
    programs={"nvidia-bmm-cloud-controller-manager": PROGRAM.format(package="ccm")},
    max_compressed_bytes=25 * 1000 * 1000,
    folder=CONTAINER / "images" / "cloud-controller",
    modules=("_bmm", "_core"),
)
IMAGES = {one.name: one for one in (CC_MANAGER, DEVICE_PLUGIN, CLOUD_CONTROLLER)}


def main() -> int:
    """Build, write, say what came out; 1 when it is too large."""
    parser = argparse.ArgumentParser(description="Build an image.")
    parser.add_argument(
        "name", nargs="?", choices=IMAGES, default=CC_MANAGER.name, help="which; by default %(default)s"
    )
    parser.add_argument("--tag", help="the image's name; by default localhost/NAME:dev")
    parser.add_argument("--out", type=Path, help="where the docker archive goes; by default dist/NAME.tar")
    parser.add_argument("--fresh", action="store_true", help="fetch the Debian packages again")
    options = parser.parse_args()
    image = IMAGES[options.name]
    tag, out = options.tag or f"localhost/{image.name}:dev", options.out or ROOT / f"dist/{image.name}.tar"
    try:
        compressed = build(tag, out.absolute(), options.fresh, image)
    except NotPossible as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    fits = compressed <= image.max_compressed_bytes
    print(f"{out}: {tag}, {digest(out)}")
    limit = f"limit {image.max_compressed_bytes / 1e6:.0f} MB"
    print(f"compressed {compressed / 1e6:.1f} MB, {limit}: {'ok' if fits else 'too large'}")
    return 0 if fits else 1


def build(tag: str, out: Path, fresh: bool = False, image: Image = CC_MANAGER) -> int:
    """The image as a docker archive, and its list of contents beside it; the layers' size when compressed, in bytes."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two builds would clear away each other's packages
        assemble(tag, out, fresh, image)
    return compressed_bytes(out)


def assemble(tag: str, out: Path, fresh: bool, image: Image) -> None:
    """The context, and the image made of it."""
    epoch = source_date_epoch(ROOT)
    base = root_file_system(epoch, fresh, image)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        context = Path(name) / "context"
        context.mkdir()
        os.link(base / "rootfs.tar", context / "rootfs.tar")
        shutil.copy(CONTAINER / "Containerfile", context)
        fill(context / "root", image)
        packages = json.loads((base / "packages.json").read_text())
        sbom = of_image(image.name, version(), packages, context / "root" / SITE, epoch)
        write(context / "root" / SBOM / f"{image.name}.cdx.json", sbom)
        settle(context / "root", epoch)
        out.parent.mkdir(parents=True, exist_ok=True)
        write(out.with_suffix(".cdx.json"), sbom)
        docker_archive(context, Path(name), tag, out, ["--timestamp", str(epoch), "--target", image.name])


def root_file_system(epoch: int, fresh: bool, image: Image) -> Path:
    """A folder with Debian's packages, unpacked and trimmed, as rootfs.tar, and the list of them as packages.json."""
    hook = CONTAINER / "trim.sh"

    def fetch(folder: Path) -> None:
        # mmdebstrap's own cleaning needs files of apt, which the hook takes away.
        left_out = folder / "left-out.txt"
        left_out.write_text(image.left_out)
        options = ["--variant=extract", "--skip=cleanup", "--dpkgopt=path-exclude=/usr/share/man/*"]
        options += [f"--extract-hook={hook} {left_out} {folder / 'packages.json'} $1"]
        apt_sources = debian.sources(security=True)
        times = {"SOURCE_DATE_EPOCH": str(epoch)}
        debian.mmdebstrap(folder / "rootfs.tar", image.packages, options, apt_sources=apt_sources, environment=times)

    if fresh:
        cache.forget(image.kind, CACHE)
    ingredients = [debian.SUITE, image.packages, hook.read_text(), image.left_out, epoch]
    return cache.finished(image.kind, ingredients, fetch, CACHE)


def fill(root: Path, image: Image) -> None:
    """Everything that lies on top of Debian."""
    install(root / SITE, ROOT / "requirements" / image.lock)
    ignored = shutil.ignore_patterns("__pycache__", "*.proto", "*.pyi")
    for name in (SHARED, image.package, *image.also):
        shutil.copytree(CONTAINER / name, root / SITE / name, ignore=ignored)
    for module in image.modules:
        folder = f"plugins/module_utils/{module}/"
        for name in shipped(ROOT):
            # Beside the other packages: without Ansible nothing else makes the collection's name one of Python's.
            if name.startswith(folder):
                write(root / SITE / "ansible_collections/confidential/gpu" / name, (ROOT / name).read_text())
    if image.with_collection:
        for name in shipped(ROOT):
            if name.startswith(COLLECTION_PARTS):
                write(root / COLLECTION / name, (ROOT / name).read_text())
    else:
        write(root / SITE / image.package / "VERSION", version() + "\n")
    for name, text in image.programs.items():
        write(root / "usr/local/bin" / name, f"#!/usr/bin/python3\nimport os\nimport sys\n\n{text}", 0o755)


def version() -> str:
    """The collection's, which is the images' too."""
    return str(yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"])


def install(site: Path, requirements: Path) -> None:
    """The Python packages, by hash, as wheels for the image's Python."""
    lock = site.parent / requirements.name
    write(lock, for_image(requirements.read_text()))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--no-compile"]
    command += ["--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--no-warn-script-location"]
    command += ["--implementation", "cp", "--python-version", PYTHON, *(f"--platform={one}" for one in PLATFORMS)]
    # The lock's markers have said which Python each version is for; pip would ask the one that runs it.
    command += ["--ignore-requires-python"]
    done = subprocess.run([*command, "--target", site, "-r", lock], check=False)
    lock.unlink()
    if done.returncode:
        raise NotPossible(f"pip could not install {requirements.relative_to(ROOT)} (its words are above)")
    for pattern in LEFT_OUT:
        for path in sorted(site.glob(pattern)):
            remove(path)
    # Lists of files with hashes, among them of files that are left out; and who installed it.
    for path in [
        *site.glob("*.dist-info/RECORD"),
        *site.glob("*.dist-info/INSTALLER"),
        *site.glob("*.dist-info/REQUESTED"),
    ]:
        path.unlink()


def for_image(lock: str) -> str:
    """The lines of a lock file that hold for the image's Python: pip would take those for the Python that runs it."""
    about = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
    chosen = []
    for entry in re.split(r"\n(?=\S)", lock):
        name, separator, rest = entry.partition(" ; ")
        marker, backslash, hashes = rest.partition(" \\\n")
        if not separator:
            chosen.append(entry)
        elif Marker(marker).evaluate(about):
            chosen.append(name + backslash + hashes)
    return "\n".join(chosen) + "\n"


def remove(path: Path) -> None:
    """A file or a folder, if it is there still."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def settle(root: Path, epoch: int) -> None:
    """The same rights and times whoever builds."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def digest(archive: Path) -> str:
    """The image's id: the hash of its configuration, which names the layers by theirs."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        config: str = json.load(member)[0]["Config"]
    return f"sha256:{config.removesuffix('.json')}"


def compressed_bytes(archive: Path) -> int:
    """What a registry would keep of the layers."""
    total = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.endswith(".tar") and (file := tar.extractfile(member)):
                packer = zlib.compressobj(6)
                total += sum(len(packer.compress(chunk)) for chunk in iter(lambda: file.read(1 << 20), b""))
                total += len(packer.flush())
    return total


def rows(path: Path) -> Iterator[str]:
    """Lines that say something."""
    return (line for line in path.read_text().splitlines() if line and not line.startswith("#"))


def write(path: Path, content: str, mode: int = 0o644) -> None:
    """Text, in a folder that is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)


if __name__ == "__main__":
    sys.exit(main())
