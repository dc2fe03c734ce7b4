# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Every command in README and docs can be run as written: programs, targets, playbooks, modules, options, files."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from docs.texts import ROOT, Block, blocks, spans

sys.path.insert(0, str(ROOT))
import itertools

from tests.run import GROUPS, suites

# Variables of playbooks that no role has.
PLAYBOOKS = ROOT / "playbooks"
# What a reader puts in, and what lies outside of the repository.
PLACES = ("inventory", "reports", "wheels", "dist", "nvidia", "wheel", "package")
LABELS = r"nvidia\.com/[\w.-]+"


def commands() -> list[tuple[str, list[str]]]:
    """Commands of the shell blocks, each with its place; comments, assignments and what a pipe or a loop adds apart.

    What stands in a here-document is no command.
    """
    found = []
    for block in blocks("sh", "bash", "shell"):
        text = re.sub(r"<<(\w+)\n.*?^\1$", "", block.text.replace("\\\n", " "), flags=re.DOTALL | re.MULTILINE)
        for line in whole_lines(text):
            for words in parts(line):
                while words and (re.fullmatch(r"[A-Z_]+=.*", words[0]) or words[0] in ("do", "sudo", "$")):
                    words.pop(0)
                if words and words[0] not in ("for", "done"):
                    found.append((f"{block.where} {' '.join(words)[:60]}", words))
    return found


def parts(line: str) -> list[list[str]]:
    """The words of each command of a line, without comments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";|&"):
            found.append([])
        else:
            found[-1].append(word)
    return found


def whole_lines(text: str) -> list[str]:
    """Lines of a script; one whose quotes are open goes on in the next. What stands between them counts as one word."""
    found: list[str] = []
    is_open = False
    for line in text.splitlines():
        found = [*found[:-1], f"{found[-1]} {line}"] if is_open else [*found, line]
        try:
            shlex.split(found[-1], comments=True)
            is_open = False
        except ValueError:
            is_open = True
    return found


def targets() -> dict[str, str]:
    """Targets of the Makefile with a description."""
    return dict(re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


def variables() -> set[str]:
    """What -e can set: the options of roles, and what playbooks read."""
    found = {"ansible_python_interpreter"}
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        found |= set(yaml.safe_load(path.read_text())["argument_specs"]["main"].get("options", {}))
    for path in PLAYBOOKS.glob("*.yml"):
        found |= set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", path.read_text()))
    return found


def values_of(chart: str) -> dict[str, object]:
    loaded: dict[str, object] = yaml.safe_load((ROOT / chart / "values.yaml").read_text())
    return loaded


# --- one check for each program ---------------------------------------------------------------------------------------


def make(words: list[str]) -> None:
    for word in words:
        if word.startswith("-"):
            continue
        name, equals, value = word.partition("=")
        if not equals:
            assert name in targets(), f"make has no target {name}"
        elif name == "SUITES":
            known = {suite.name for suite in suites()} | set(GROUPS)
            assert set(value.split()) <= known, f"no suite {value}"
        else:
            assert re.search(rf"^{name} \?=", (ROOT / "Makefile").read_text(), re.MULTILINE), f"make reads no {name}"


def playbook(words: list[str]) -> None:
    values = {value for option, value in itertools.pairwise(words) if option.startswith("-")}
    (book,) = [word for word in words if re.match(r"[^@{]*\.yml$|confidential\.gpu\.\w+$", word) and word not in values]
    path = ROOT / book if book.endswith(".yml") else PLAYBOOKS / f"{book.rsplit('.', 1)[1]}.yml"
    assert path.is_file(), f"no playbook {book}"
    for option, value in itertools.pairwise(words):
        if option == "-e":
            for name in re.findall(r"(?:^|\s)(\w+)=", value):
                assert name in variables(), f"nothing reads {name}"
        if option in ("--tags", "-t"):
            assert set(value.split(",")) <= set(re.findall(r"\b\w+\b", path.read_text())), f"no tag {value}"


def python(words: list[str]) -> None:
    if words[0] == "-m":
        module, rest = words[1], words[2:]
        if module in ("pip", "zipfile", "venv"):
            return
        if module == "pytest":
            named = [word for word in rest if word.startswith("tests/")]
            assert named
            assert all((ROOT / name).exists() for name in named), named
            return
        path = module.replace(".", "/")
        places = [base / path for base in (ROOT, ROOT / "gpu-admin-tools", ROOT / "container", ROOT / "tests")]
        files = [
            file for place in places for file in (place.with_suffix(".py"), place / "__main__.py") if file.is_file()
        ]
        assert files, f"no module {module}"
        text = "".join(file.read_text() for file in files[0].parent.rglob("*.py"))
    else:
        assert (ROOT / words[0]).is_file(), f"no file {words[0]}"
        rest, text = words[1:], (ROOT / words[0]).read_text()
    for word in rest:
        option = word.partition("=")[0]
        if option.startswith("--"):
            assert f'"{option}"' in text, f"{words[:2]} knows no {option}"


def kubectl(words: list[str]) -> None:
    known = keys()
    for key in re.findall(LABELS, " ".join(words)):
        assert key in known or key.startswith(("nvidia.com/gpu.", "nvidia.com/device-plugin.")), f"nothing knows {key}"
    for option, value in itertools.pairwise(words):
        if option in ("-f", "--filename") and not value.startswith(("-", "http")):
            assert (ROOT / value).exists(), f"no file {value}"


def keys() -> set[str]:
    """Labels, annotations and resources that code, charts and rules name."""
    files = [
        *ROOT.glob("container/**/*.py"),
        *ROOT.glob("container/charts/**/*.yaml"),
        *ROOT.glob("container/charts/**/*.tpl"),
    ]
    return set(re.findall(LABELS, "\n".join(path.read_text() for path in files)))


def helm(words: list[str]) -> None:
    charts = [word for word in words if word.startswith("container/charts/")]
    assert all((ROOT / chart / "Chart.yaml").is_file() for chart in charts), charts
    for option, value in itertools.pairwise(words):
        if option == "--set" and charts:
            for setting in re.split(r",(?=[\w.\[\]]+=)", value):
                place: object = values_of(charts[0])
                for part in re.split(r"[.\[]", setting.partition("=")[0].replace("\\.", "\0")):
                    if isinstance(place, dict) and place:
                        assert part in place, f"{charts[0]} has no value {setting}"
                        place = place[part]


def files(words: list[str]) -> None:
    for word in words:
        if "/" in word and not word.startswith(("/", "-", "http", "~")) and word.split("/")[0] not in PLACES:
            assert (ROOT / word).exists() or (ROOT / "gpu-admin-tools" / word).exists(), f"no file {word}"


def ansible(words: list[str]) -> None:
    name = words[words.index("-m") + 1]
    if name.startswith("ansible.builtin."):
        return
    module = name.rsplit(".", 1)[1]
    path = ROOT / "plugins/modules" / f"{module}.py"
    assert path.is_file(), f"no module {module}"
    known = path.read_text() + (ROOT / "plugins/doc_fragments/devices.py").read_text()
    for name in re.findall(r"(\w+)=", words[words.index("-a") + 1]):
        assert re.search(rf"^ +{name}:$", known, re.MULTILINE), f"{module} has no option {name}"


def anything(_words: list[str]) -> None:
    """A program of others, of which nothing here is named."""


def antsibull(words: list[str]) -> None:
    assert "antsibull" in (ROOT / "requirements/docs.txt").read_text() + (ROOT / "requirements/test.txt").read_text()


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "make": make,
    "ansible": ansible,
    "ansible-playbook": playbook,
    "python": python,
    "python3": python,
    ".venv/bin/python": python,
    "kubectl": kubectl,
    "helm": helm,
    "cd": files,
    **dict.fromkeys(("ls", "export", "true", "test", "echo"), anything),
    "antsibull-changelog": antsibull,
    **dict.fromkeys(("apt", "git", "pip", "diff", "lspci", "systemctl", "ansible-doc", "ansible-galaxy"), anything),
    **dict.fromkeys(("ansible-navigator", "ansible-rulebook", "ansible-inventory", "grep"), anything),
    **dict.fromkeys(
        (
            "ctr",
            "podman",
            "docker",
            "ln",
            "buildah",
            "nvidia-smi",
            "talosctl",
            "rm",
            "mkdir",
            "curl",
            "cat",
            "ssh-keygen",
            "sha256sum",
        ),
        anything,
    ),
}


@pytest.mark.parametrize(("where", "words"), [pytest.param(*one, id=one[0]) for one in commands()])
def test_a_command_names_what_is_there(where: str, words: list[str]) -> None:
    assert words[0] in CHECKS, f"{where}: no check for the program {words[0]}: add one here"
    CHECKS[words[0]](words[1:])


def test_there_are_commands() -> None:
    assert len(commands()) > 40


def test_each_target_is_described_and_shown() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) - {"python", "setup-plugin"} == set(targets())
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert [line.split()[1] for line in shown.splitlines()] == list(targets())
    assert all(len(line.split()) > 3 for line in shown.splitlines())


def test_commands_in_sentences_name_what_is_there() -> None:
    wrong = []
    for where, span in spans():
        try:
            words = shlex.split(span.rstrip("."))
        except ValueError:
            continue
        whole = len(words) > 1 and words[0] in ("make", "ansible-playbook", "python") and "..." not in span
        try:
            if whole:
                CHECKS[words[0]](words[1:])
        except (AssertionError, ValueError) as error:
            wrong.append(f"{where}: {span}: {error}")
    assert wrong == []


def test_files_in_sentences_are_there() -> None:
    tops = "|".join(sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")))
    pattern = re.compile(rf"(?:{tops}|\.github|\.ci)/[\w./*-]+")
    wrong = []
    for where, span in spans():
        path = span.partition("::")[0].rstrip("/")
        # What is made lies in dist, and below tests/output.
        if pattern.fullmatch(path) and not path.startswith(("dist/", "tests/output")) and not list(ROOT.glob(path)):
            here = ROOT / where.rpartition(":")[0]
            if not list(here.parent.glob(path)):
                wrong.append(f"{where}: {span}")
    assert wrong == []


def tasks(node: object) -> list[str]:
    """Names of this collection anywhere in YAML."""
    if isinstance(node, dict):
        return [name for pair in node.items() for one in pair for name in tasks(one)]
    if isinstance(node, list):
        return [name for one in node for name in tasks(one)]
    return re.findall(r"\bconfidential\.gpu\.(\w+)", node) if isinstance(node, str) else []


@pytest.mark.parametrize("block", [pytest.param(one, id=one.where) for one in blocks("yaml", "yml")])
def test_an_example_is_yaml_and_names_what_is_there(block: Block) -> None:
    known = {path.stem for path in ROOT.glob("plugins/*/*.py")} | {path.name for path in (ROOT / "roles").iterdir()}
    known |= {path.stem for path in PLAYBOOKS.glob("*.yml")}
    for document in yaml.safe_load_all(block.text):
        assert set(tasks(document)) <= known
        for play in document if isinstance(document, list) else []:
            for role in play.get("roles", []) if isinstance(play, dict) else []:
                if isinstance(role, dict):
                    assert set(role.get("vars", {})) <= variables(), role


def test_a_broken_command_is_found(tmp_path: Path) -> None:
    for words in (
        ["make", "nothing"],
        ["ansible-playbook", "confidential.gpu.nothing"],
        ["python", "-m", "tests.nothing"],
    ):
        with pytest.raises(AssertionError):
            CHECKS[words[0]](words[1:])
