# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the builder of the site refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from docs.texts import ROOT

sys.path.insert(0, str(ROOT))
from tools.docs.links import broken
from tools.docs.pages import BrokenLink, pages, rewritten

REPOSITORY = "https://example.invalid/repository"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two guides and a file beside them."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/one.md").write_text("[two](two.md#there) [code](../code.py) [out](https://example.invalid/x)\n")
    (tmp_path / "docs/two.md").write_text("[change](../CONTRIBUTING.md)\n```sh\n[x](nothing.md)\n```\n")
    (tmp_path / "CONTRIBUTING.md").write_text("[two](docs/two.md)\n")
    (tmp_path / "code.py").touch()
    return tmp_path


def test_links_lead_to_pages_or_to_the_repository(root: Path) -> None:
    names = pages(root)
    one = rewritten(root, "docs/one.md", names, REPOSITORY)
    assert one == f"[two](two.md#there) [code]({REPOSITORY}/blob/main/code.py) [out](https://example.invalid/x)\n"
    assert rewritten(root, "docs/two.md", names, REPOSITORY).startswith("[change](contributing.md)\n")
    assert rewritten(root, "CONTRIBUTING.md", names, REPOSITORY) == "[two](two.md)\n"


def test_a_link_to_no_file_is_refused(root: Path) -> None:
    (root / "docs/one.md").write_text("[gone](gone.md)\n")
    with pytest.raises(BrokenLink, match="docs/one.md: there is no docs/gone.md"):
        rewritten(root, "docs/one.md", pages(root), REPOSITORY)


def test_links_of_built_pages_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#here"></a><a href="b.html#gone"></a><img src="c.svg">')
    (tmp_path / "b.html").write_text('<h1 id="here"></h1><a href="https://example.invalid/"></a><a href="#here"></a>')
    assert broken(tmp_path) == ["a.html: b.html#gone leads to no heading", "a.html: c.svg leads to no page"]
