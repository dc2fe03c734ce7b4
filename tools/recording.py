# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Record a command in a terminal as an animated SVG: python -m tools.recording OUT.svg COMMAND [ARGUMENT ...]

The command runs behind a pseudo-terminal, so that it prints what a person sees, with its colours. Each line appears at
the bottom at the time at which it was printed; pauses are cut to two seconds. Moves of the cursor are not supported.
The same lies in .cache as an asciicast, version 2 (the format: docs.asciinema.org, "asciicast v2"). What the command
printed last, from the last line that begins with "step", goes into README.md between <!-- demo --> and <!-- end -->.
"""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
import time
from html import escape
from pathlib import Path

COLUMNS, ROWS = 120, 26
PAUSE_S = 2.0
END_S = 4.0  # how long the last screen stays before the recording starts again
CHARACTER, LINE, MARGIN, BAR = 7.23, 17, 14, 30  # pixels
COLOURS = {30: "#808080", 31: "#ff6b68", 32: "#8ccf5f", 33: "#e8c15a", 34: "#6ca8f0", 35: "#d08cf0", 36: "#5fc8d0"}
ESCAPE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])")


def record(command: list[str]) -> tuple[list[tuple[float, str]], int]:
    """What a command prints to its terminal, piece by piece with the seconds since its start, and its exit status."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    began, events = time.monotonic(), []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # EIO: the last process that had the terminal has ended
            piece = b""
        if not piece:
            break
        text = decoder.decode(piece)
        events.append((time.monotonic() - began, text))
        sys.stdout.write(text)
        sys.stdout.flush()
    return events, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def cast(events: list[tuple[float, str]]) -> str:
    """An asciicast, version 2."""
    header = {"version": 2, "width": COLUMNS, "height": ROWS}
    return "".join(json.dumps(row) + "\n" for row in [header, *([round(at, 3), "o", text] for at, text in events)])


def lines_of(events: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Lines as wide as the terminal, each with the time of its end, in seconds; long pauses are cut."""
    lines: list[tuple[float, str]] = []
    now, before, rest = 0.0, 0.0, ""
    for at, text in events:
        now += min(at - before, PAUSE_S)
        before = at
        *whole, rest = (rest + text.replace("\r", "")).split("\n")
        lines += [(now, part) for line in whole for part in wrapped(line)]
    return lines + ([(now, rest)] if rest else [])


def wrapped(line: str) -> list[str]:
    """A line in pieces of the terminal's width; escapes take no room."""
    pieces, width, colour = [""], 0, ""
    for part in re.split(r"(\x1b\[[0-9;]*[A-Za-z])", line):
        if ESCAPE.fullmatch(part):
            colour = part
            pieces[-1] += part
            continue
        for character in part:
            if width == COLUMNS:
                pieces.append(colour)
                width = 0
            pieces[-1] += character
            width += 1
    return pieces


def coloured(line: str) -> str:
    """The line as SVG text, its colours as tspan."""
    out, colour, bold, place = "", "", False, 0
    for found in [*ESCAPE.finditer(line), None]:
        text = escape(line[place : found.start() if found else None], quote=False)
        style = (f' fill="{colour}"' if colour else "") + (' font-weight="bold"' if bold else "")
        out += f"<tspan{style}>{text}</tspan>" if text and style else text
        if found:
            place = found.end()
            for code in [int(one or 0) for one in found[1].split(";")] if found[2] == "m" else []:
                colour = COLOURS.get(code - 60 if code >= 90 else code, "" if code in (0, 39) else colour)
                bold = code == 1 or (bold and code not in (0, 22))
    return out


def svg(lines: list[tuple[float, str]], title: str) -> str:
    """A window of a terminal through which the lines scroll.

    All lines stand below each other, and one animation moves them up, a step at each time at which lines came. Who has
    motion switched off, and a program that knows no animation, shows the last screen.
    """
    width, height = round(COLUMNS * CHARACTER) + 2 * MARGIN, ROWS * LINE + BAR + MARGIN
    duration = lines[-1][0] + END_S
    steps: dict[float, int] = {}
    for count, (at, _line) in enumerate(lines, 1):
        steps[round(100 * at / duration, 2)] = count
    last = ROWS - len(lines)
    frames = "".join(f"{at}%{{transform:translateY({(ROWS - count) * LINE}px)}}" for at, count in steps.items())
    text = "\n".join(
        f'<text y="{(row + 1) * LINE - 4}" xml:space="preserve">{coloured(line)}</text>'
        for row, (_at, line) in enumerate(lines)
        if ESCAPE.sub("", line).strip()
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">
<!-- Copyright: (c) 2026, confidential.gpu contributors -->
<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- Made from a run by `make recording`. -->
<title>{escape(title)}</title>
<style>
text{{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d8dee4}}
#lines{{transform:translateY({last * LINE}px);animation:scroll {duration:.1f}s step-end infinite}}
@keyframes scroll{{0%{{transform:translateY({ROWS * LINE}px)}}{frames}}}
@media (prefers-reduced-motion:reduce){{#lines{{animation:none}}}}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#1c2128"/>
<circle cx="20" cy="15" r="5" fill="#ff5f57"/><circle cx="38" cy="15" r="5" fill="#febc2e"/>
<circle cx="56" cy="15" r="5" fill="#28c840"/>
<text x="{width / 2:.0f}" y="19" text-anchor="middle">{escape(title)}</text>
<svg x="{MARGIN}" y="{BAR}" width="{width - 2 * MARGIN}" height="{ROWS * LINE}"><g id="lines">
{text}
</g></svg>
</svg>
"""


def quoted(readme: str, lines: list[tuple[float, str]]) -> str:
    """README.md with the end of the recording in its place."""
    plain = [ESCAPE.sub("", line).rstrip() for _at, line in lines]
    table = [row for row, line in enumerate(plain) if line.startswith("step ")]
    if not table:
        return readme
    block = "\n".join(["<!-- demo -->", "```text", *plain[table[-1] :], "```", "<!-- end -->"])
    return re.sub(r"<!-- demo -->.*?<!-- end -->", lambda _old: block, readme, count=1, flags=re.DOTALL)


def main() -> int:
    """Record, and write both files when the command succeeded; its exit status."""
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    out, command = Path(sys.argv[1]), sys.argv[2:]
    events, status = record(command)
    if status:
        print(f"recording: {command[0]} ended with status {status}; nothing was written.", file=sys.stderr)
        return status
    title = "make demo" if command[-1].endswith("demo.py") else " ".join(command)
    lines = lines_of([(0.0, f"$ {title}\r\n"), *events])
    readme = Path("README.md")
    made = {out: svg(lines, title), Path(".cache", out.stem + ".cast"): cast(events)}
    made[readme] = quoted(readme.read_text(encoding="utf-8"), lines)
    for path, content in made.items():
        draft = path.with_name(path.name + ".new")
        draft.write_text(content, encoding="utf-8")
        draft.replace(path)
    print(f"recording: {len(lines)} lines, {lines[-1][0]:.0f} s: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
