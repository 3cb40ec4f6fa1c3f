"""Two adjustments that the site's builder needs.

`RepositoryLinks` (Python-Markdown) adapts relative links. The pages of the site are files of the
repository, or include one, and their links are right there. On the site a link to a file that is a
page leads to the page; any other leads to the repository.

`Docstrings` (Griffe) turns the Sphinx roles in docstrings, such as :class:`~bsmamba2.Separator`,
into code that links to the object where the site has it, and leaves out special methods that have
no docstring.
"""

from __future__ import annotations

import posixpath
import re
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import griffe
from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor
from markdown.treeprocessors import Treeprocessor

ROOT = Path(__file__).parents[1]
DOCS = "docs"
FILES = "https://github.com/bsmamba2/bsmamba2/blob/main/"
INCLUDE = re.compile(r'^--8<-- "([^"]+)"$', re.MULTILINE)
ROLE = re.compile(r":(?:class|func|meth|attr|data|mod|exc):`(~?)([\w.]+)`")


def pages() -> dict[str, str]:
    """The site's pages by the files of the repository that they show."""
    shown = {}
    for page in (ROOT / DOCS).glob("*.md"):
        included = INCLUDE.search(page.read_text())
        shown[included[1] if included else f"{DOCS}/{page.name}"] = page.name
    return shown


class RepositoryLinks(Extension):
    """Makes links between files of the repository right on the site."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - Markdown calls it so
        source = _IncludedFile(md)
        md.preprocessors.register(source, "included_file", 40)  # before pymdownx.snippets
        md.treeprocessors.register(_Links(md, source), "repository_links", 10)


class _IncludedFile(Preprocessor):
    """Remembers the folder of the file that the page includes."""

    folder = DOCS

    def run(self, lines: list[str]) -> list[str]:
        included = INCLUDE.search("\n".join(lines))
        self.folder = posixpath.dirname(included[1]) if included else DOCS
        return lines


class _Links(Treeprocessor):
    def __init__(self, md: Markdown, source: _IncludedFile) -> None:
        super().__init__(md)
        self._source = source
        self._pages = pages()

    def run(self, root: Element) -> None:
        for link in root.iter("a"):
            target, mark, anchor = link.get("href", "").partition("#")
            if target and not re.match(r"[a-z]+:|/", target):
                link.set("href", self._resolve(target) + mark + anchor)

    def _resolve(self, target: str) -> str:
        file = posixpath.normpath(posixpath.join(self._source.folder, target))
        if file in self._pages:
            return self._pages[file]
        return FILES + file if (ROOT / file).exists() else target


class Docstrings(griffe.Extension):
    """Rewrites Sphinx roles, and hides special methods without a docstring."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        for obj in _objects(pkg):
            if obj.docstring:
                link = partial(_link, obj)
                obj.docstring.value = ROLE.sub(link, obj.docstring.value)
            elif obj.is_function and obj.name.startswith("__"):
                obj.public = False


def _objects(module: griffe.Object) -> list[griffe.Object]:
    own = [member for member in module.members.values() if isinstance(member, griffe.Object)]
    return [module, *(obj for member in own for obj in _objects(member))]


def _link(obj: griffe.Object, role: re.Match[str]) -> str:
    """The name as code, with a link that is left out where the site has no such object."""
    short, name = role.groups()
    path = name
    scope: griffe.Object | None = obj
    while scope is not None and path == name:
        if name.partition(".")[0] in scope.members:
            path = f"{scope.path}.{name}"
        scope = scope.parent
    text = name.rpartition(".")[2] if short else name
    return f'<autoref optional identifier="{path}"><code>{text}</code></autoref>'
