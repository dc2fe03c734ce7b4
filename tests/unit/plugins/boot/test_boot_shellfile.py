# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Shell files: only the value is exchanged; a shell agrees with what was read; what is not understood is refused."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_boot_cmdline import TOKENS

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired, normal
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import NotUnderstood, Shadowed
from ansible_collections.confidential.gpu.plugins.module_utils._boot.grub import DEFAULT, DEFAULTS, Settings
from ansible_collections.confidential.gpu.plugins.module_utils._boot.shellfile import assignments

C, D = "GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"
DESIRED = Desired(add=("new=1",), remove=("iommu=pt",))


def rewritten(text: str, desired: Desired = DESIRED) -> str:
    return Settings({DEFAULTS: text}).rewritten(desired, DEFAULT).get(DEFAULTS, text)


def by_shell(text: str) -> list[str]:
    script = text + '\nprintf "%s %s" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"'
    answer = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True, env={}, stdin=subprocess.DEVNULL
    )
    return answer.stdout.split()


@pytest.mark.parametrize(
    ("text", "after"),
    [
        (f'{D}="quiet iommu=pt"\n', f'{D}="quiet new=1"\n'),
        (f"{D}='quiet iommu=pt'", f"{D}='quiet new=1'"),
        (f"{D}=quiet # why\n", f'{D}="quiet new=1" # why\n'),
        (f"{D}=iommu=pt;X=1\n", f'{D}="new=1";X=1\n'),
        (f"{D}=\n", f'{D}="new=1"\n'),
        (f'export {D}="iommu=pt  quiet "\n', f'export {D}="quiet new=1 "\n'),
        (f'  {D}="a"\t\n', f'  {D}="a new=1"\t\n'),
        (f'{D}="a"\n{D}="b iommu=pt"\n', f'{D}="a"\n{D}="b new=1"\n'),
        (f'{D}="a iommu=pt"\n{D}="${D} b"\n', f'{D}="a"\n{D}="${D} b new=1"\n'),
        (f'{D}="a"\n{D}="${{{D}}} iommu=pt"\n', f'{D}="a"\n{D}="${{{D}}} new=1"\n'),
        (f'{C}="iommu=pt x"\n{D}="q"\n', f'{C}="x"\n{D}="q new=1"\n'),
        (f'{C}="x"\n', f'{C}="x"\n{D}="new=1"\n'),
        ("X=1", f'X=1\n{D}="new=1"\n'),
        ("", f'{D}="new=1"\n'),
        (f'# {D}="iommu=pt"\n{D}="q"\n', f'# {D}="iommu=pt"\n{D}="q new=1"\n'),
        (f'{D}="quiet \\\n  iommu=pt \\\n  x"\n', f'{D}="quiet \\\n  x new=1"\n'),
        (f"{D}=\"a \"'iommu=pt b'\n", f'{D}="a b new=1"\n'),
        (f"{D}=${D}\n", f'{D}="${{{D}}} new=1"\n'),
        (f"{D}=a\\ iommu=pt\n", f'{D}="a new=1"\n'),
        (f'{D}="a=\\"b c\\" iommu=pt"\n', f'{D}="a=\\"b c\\" new=1"\n'),
        (f'{D}="a -- b"\n', f'{D}="a new=1 -- b"\n'),
        (f'X=`echo "it\'s"`\n{D}=a\n', f'X=`echo "it\'s"`\n{D}="a new=1"\n'),
        (f"X=\"$(sed 's, .*,,g' f)\"\n{D}=a\n", f'X="$(sed \'s, .*,,g\' f)"\n{D}="a new=1"\n'),
        (f'if [ "$X" ]; then\n  Y=1\nfi\n{D}=a\n', f'if [ "$X" ]; then\n  Y=1\nfi\n{D}="a new=1"\n'),
        (f"f() {{\n  Y=1\n}}\n{{\nY=2\n}}\n{D}=a\n", f'f() {{\n  Y=1\n}}\n{{\nY=2\n}}\n{D}="a new=1"\n'),
        (f"case x in\n a) Y=1;;\nesac\n{D}=a\n", f'case x in\n a) Y=1;;\nesac\n{D}="a new=1"\n'),
        (f'GRUB_CMDLINE_XEN="${C}"\nX=\\"\n{D}=a', f'GRUB_CMDLINE_XEN="${C}"\nX=\\"\n{D}="a new=1"'),
        (f'{D}="a" #', f'{D}="a new=1" #'),
        (f'{D}="a"#b\n', f'{D}="a#b new=1"\n'),
        (f'{C}="a ${D}"\n{D}="x"\n{C}="${D} ${C} iommu=pt"\n', f'{C}="a ${D}"\n{D}="x new=1"\n{C}="${D} ${C}"\n'),
        (f'{D}="b\\%c iommu=pt"\n', f'{D}="b\\%c new=1"\n'),
        (
            f'{D}="a iommu=pt"\n{D}="${{{D}:+${D} }}\\$tuned_params"\n',
            f'{D}="a"\n{D}="${{{D}:+${D} }}\\$tuned_params new=1"\n',
        ),
        (f'{D}="${{{D}:+${{{D}}} }}iommu=pt x"\n', f'{D}="${{{D}:+${{{D}}} }} x new=1"\n'),
        (f'{D}="${{{D}:+${D} }}"\n', f'{D}="${{{D}:+${D} }} new=1"\n'),
        (f"{D}=\"${{{D}:+${D} }}\"'a iommu=pt'\n", f'{D}="${{{D}}} a new=1"\n'),
    ],
)
def test_only_the_value_changes(text: str, after: str) -> None:
    assert rewritten(text) == after
    assert DESIRED.unmet(by_shell(after)) == []
    assert rewritten(after) == after


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f'X=1\n{D}="$(cat /proc/cmdline)"\n',
            r"/etc/default/grub, line 2: the value holds \$\(cat, which is not known",
        ),
        (f"{D}=`id`\n", "line 1: the value holds `"),
        (f'{D}="`id`"\n', "the value holds `"),
        (f'{D}="$EXTRA"\n', r"holds \$EXTRA"),
        (f'{D}="${{{D}:-x}}"\n', "which is not known"),
        (f'{D}="${{{D}:+x }}a"\n', "which is not known"),
        (f'{D}="x${{{D}:+${D} }}"\n', "joined"),
        (f'{D}="${D}x"\n', "which is not known"),
        (f'{D}="x${D}"\n', "joined"),
        (f'{D}="a\n', "no end"),
        (f"{D}='a\n", "no end"),
        (f"X='a\n{D}=b\n", "no end"),
        (f"X=`a\n{D}=b\n", "no end"),
        (f'X="a\n{D}=b\n', "no end"),
        (f"X=$(a\n{D}=b\n", "no end"),
        (f"{D}=a\\", "backslash"),
        (f"{D}=a command\n", "something follows"),
        (f"{D}=a&\n", "holds &"),
        (f'{D}="a\x01"\n', "control character"),
        (f"{D}=a\r\n", "control character"),
        (f"if true; then {D}=a; fi\n", "conditional"),
        (f"if true; then\n {D}=a\nfi\n", "conditional"),
        (f"true && {D}=a\n", "conditional"),
        (f'{D}+=" a"\n', "conditional, or not a plain"),
        (f"cat <<E\n{D}=a\nE\n", "here-documents"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(NotUnderstood, match=words) as caught:
        Settings({DEFAULTS: text})
    assert caught.value.state == "Nothing was changed."


def test_what_would_have_no_effect_is_refused() -> None:
    chain = Settings({DEFAULTS: "", "/ours": "", "/zz": f'{D}="last"\n'})
    with pytest.raises(Shadowed, match=r"would not be in force: new=1 is missing.*later assignment"):
        chain.rewritten(DESIRED, DEFAULT, "/ours")


def test_a_token_that_stands_there_twice_by_reference() -> None:
    text = f'{D}="a=1"\n{C}="${D}"\n'
    assert rewritten(text, Desired(remove=("a",))) == f'{D}=""\n{C}="${D}"\n'
    with pytest.raises(Shadowed):  # one place cannot hold one value and none
        rewritten(text, Desired(replace=("a=2",)))


def test_grub_scripts_are_read_too() -> None:
    found = assignments('set x="a b"\nmenuentry "y" {\n set z=1\n}\nx=c\n', ["x"], "grub.cfg", "set")
    assert [one.tokens for one in found] == [["a", "b"], ["c"]]


OTHER = st.sampled_from(
    ["X=1\n", "# comment \xff\n", "\n", "X=`lsb_release -i`\n", 'Y="$(sed s/a/b/)"\n', "  \t\n", "GRUB_TIMEOUT=5 # s\n"]
)
QUOTED = st.sampled_from(['"', "'"])


@st.composite
def shell_files(draw: st.DrawFn) -> str:
    text = "".join(draw(st.lists(OTHER, max_size=3)))
    for variable in draw(st.lists(st.sampled_from([C, D]), max_size=3)):
        quote = draw(QUOTED)
        tokens = draw(st.lists(TOKENS, max_size=4))
        words = "  ".join(token.replace('"', '\\"') if quote == '"' else token for token in tokens)
        reference = "${%s} " % variable if quote == '"' and draw(st.booleans()) else ""
        text += "%s=%s%s%s%s%s" % (variable, quote, reference, words, quote, draw(st.sampled_from(["\n", " # x\n"])))
        text += "".join(draw(st.lists(OTHER, max_size=2)))
    return text


@settings(max_examples=150)
@given(shell_files(), st.lists(TOKENS, min_size=1, max_size=3))
def test_other_bytes_stay_and_removing_restores(text: str, tokens: list[str]) -> None:
    present = Settings({DEFAULTS: text}).tokens()
    taken = {normal(token)[0] for token in present}
    desired = Desired(add=tuple(token for token in tokens if normal(token)[0] not in taken))
    added = rewritten(text, desired)
    assert desired.unmet(Settings({DEFAULTS: added}).tokens()) == []
    assert rewritten(added, desired) == added
    lines, new_lines = text.splitlines(), added.splitlines()
    assert [line for line in lines if "CMDLINE" not in line] == [line for line in new_lines if "CMDLINE" not in line]
    back = rewritten(added, Desired(remove=desired.add))
    if any(assignment.variable == DEFAULT for assignment in assignments(text, [C, D], DEFAULTS)):
        assert back == text
    else:
        assert Settings({DEFAULTS: back}).tokens() == present


@settings(max_examples=40)
@given(shell_files(), st.lists(TOKENS, max_size=2))
def test_a_shell_reads_the_same(text: str, tokens: list[str]) -> None:
    text = text.replace("`lsb_release -i`", "z").replace("\xff", "")
    after = rewritten(text, Desired(add=tuple(tokens)))
    assert " ".join(Settings({DEFAULTS: after}).tokens()).split() == by_shell(after)
