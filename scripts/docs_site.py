"""Build the docs site: the pages of the repository, as they are read there, in the theme of mkdocs-material.

scripts/docs [FOLDER] runs it in the environment of requirements/docs.txt.

Each page is copied with its links turned to where they lead in the site. Links to files that are worth having are kept,
and those into the source, which the site does not hold, become their words. Any warning of mkdocs fails the build, and
so does anything that a reader's browser would fetch from elsewhere.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from scripts import links

ROOT = links.ROOT
WORK = ROOT / ".cache" / "site"
NAVIGATION = {
    "Start": ("README.md", "docs/install.md", "docs/first-order.md", "docs/faq.md", "docs/uninstall.md"),
    "Your money": ("docs/guarding.md", "docs/pair.md", "docs/figures.md", "docs/compared.md"),
    "Operations": ("docs/operations.md", "docs/backup.md", "docs/hooks.md", "docs/container.md"),
    "Programs": ("docs/client.md", "contrib/examples/README.md", "docs/kinds.md"),
    "Reference": ("docs/commands.md", "docs/configuration.md", "docs/api.md"),
    "Project": ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
}
"""The order of the pages; one that is nowhere here comes last, and one that is not there is left out."""
WORTH_HAVING = ("config.example.toml", "LICENSE", "contrib/", "protos/", "systemd/", "docs/")
"""Files, and folders of them, that the site has beside its pages where a page links to them."""
REMOTE = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b(?![^>]*\bcanonical\b)[^>]*\bhref=["']?(?:https?:)?//"""
)

ARROW = re.compile(r"^  (\w+) (-->|-\.->)\|([^|]*)\| (\w+)$", re.MULTILINE)
NOTE = {"-->": "", "-.->": "a contradiction"}


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the docs site.")
    parser.add_argument("folder", nargs="?", type=Path, default=WORK / "html", help="default: .cache/site/html")
    folder = parser.parse_args().folder.absolute()
    shutil.rmtree(WORK / "pages", ignore_errors=True)
    stage(WORK / "pages")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--clean"]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [*command, "--config-file", WORK / "mkdocs.yml", "--site-dir", folder], env=quiet, check=False
    )
    if built.returncode != 0:
        print("scripts/docs: the site was not built; mkdocs' words are above.", file=sys.stderr)
        return 1
    remote = [path for path in sorted(folder.rglob("*.html")) if fetches(path.read_text())]
    for path in remote:
        print(f"scripts/docs: {path} fetches something from elsewhere.", file=sys.stderr)
    if not remote:
        print(f"scripts/docs: {folder}/index.html")
    return 1 if remote else 0


def stage(target: Path) -> None:
    """Write the site's pages, the files that they link to, and mkdocs' configuration beside `target`."""
    target.mkdir(parents=True)
    pages = site_pages()
    for page, name in pages.items():
        (target / name).write_text(page_of_site(page, pages, target))
    (target.parent / "mkdocs.yml").write_text(configuration(pages))


def site_pages() -> dict[Path, str]:
    """Each page with its name in the site; the README of a folder of contrib/ has the folder's."""
    return {page: "index.md" if page == ROOT / "README.md" else name_of(page) for page in links.pages()}


def name_of(page: Path) -> str:
    return f"{page.parent.name}.md" if page.name == "README.md" else page.name.lower()


def page_of_site(page: Path, pages: dict[Path, str], target: Path) -> str:
    """The text of a page with its links as they lead in the site; a file that it links to is copied below `target`."""

    def turned(link: links.Link) -> str:
        parts, path = urlsplit(link.target), links.place(page, link.target)
        mark = "!" if link.is_image else ""
        if parts.scheme or not parts.path or path is None:
            return f"{mark}[{link.label}]({link.target})"
        if path in pages:
            fragment = f"#{parts.fragment}" if parts.fragment else ""
            return f"[{link.label}]({pages[path]}{fragment})"
        inside = path.relative_to(ROOT).as_posix()
        if not path.is_file() or not inside.startswith(WORTH_HAVING):
            return link.label
        name = str(PurePosixPath("files", inside))
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)
        return f"{mark}[{link.label}]({name})"

    return lists_apart(diagrams_as_tables(links.replaced(page.read_text(), turned)))


def diagrams_as_tables(text: str) -> str:
    """The state diagrams, which a site could only draw with a program from elsewhere: each arrow is a row."""

    def table(diagram: re.Match[str]) -> str:
        arrows = ARROW.findall(diagram[0])
        rows = [f"| {source} | {says} | {target} | {NOTE[arrow]} |" for source, arrow, says, target in arrows]
        return "\n".join(["| from | on | to | |", "|---|---|---|---|", *rows])

    return re.sub(r"^```mermaid\nflowchart LR\n.*?^```$", table, text, flags=re.MULTILINE | re.DOTALL)


def lists_apart(text: str) -> str:
    """In the repository a list may follow a paragraph without a blank line; here it may not."""
    lines, is_in_list = list[str](), False
    for line, shown in zip(text.split("\n"), links.without_fences(text).split("\n"), strict=True):
        if not shown.strip():
            is_in_list = False
        elif re.match(r"(?:[-*]|\d+\.) ", shown):
            if not is_in_list and lines and lines[-1].strip():
                lines.append("")
            is_in_list = True
        lines.append(line)
    return "\n".join(lines)


def configuration(pages: dict[Path, str]) -> str:
    """mkdocs.yml of the site: the repository's, and the navigation."""
    lines = [f"INHERIT: {ROOT / 'mkdocs.yml'}", "docs_dir: pages", "nav:"]
    for title, names in navigation(pages):
        lines += [f"  - {title}:", *(f"      - {name}" for name in names)]
    return "\n".join(lines) + "\n"


def navigation(pages: dict[Path, str]) -> Iterator[tuple[str, list[str]]]:
    """The sections with their pages' names."""
    listed = {ROOT / name for names in NAVIGATION.values() for name in names}
    for title, names in NAVIGATION.items():
        if there := [pages[ROOT / name] for name in names if ROOT / name in pages]:
            yield title, there
    if rest := [name for page, name in pages.items() if page not in listed]:
        yield "More", rest


def fetches(html: str) -> bool:
    """Whether a reader's browser would fetch a part of the page from another host."""
    return REMOTE.search(html) is not None


if __name__ == "__main__":
    sys.exit(main())
