"""Links of the documentation's site to what lies outside this folder; mkdocs calls the hook."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
SUITE = re.compile(r"leaderboards/(\w+)/README\.md")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to suites to their pages of the leaderboards, and name other files in full."""
    return OUTSIDE.sub(_replaced, markdown)


def _replaced(link: re.Match[str]) -> str:
    text, path = link[1], link[2]
    if suite := SUITE.fullmatch(path):
        return f'<a href="../suites/{suite[1]}.html">{text.replace("`", "")}</a>'
    return text if path in text else f"{text} (`{path}`)"
