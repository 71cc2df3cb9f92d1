"""What people read: every link leads somewhere, the reference pages are whole, and the site holds what it links to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from holdpay import manual
from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.daemon import cli as holdpayd
from holdpay.cli.root import cli as holdpay
from holdpay.config import Settings
from holdpay.config.problems import keys_of
from scripts import docs_site, links
from scripts.manpages import Page, command_page

DOCS = links.ROOT / "docs"
PROGRAMS: dict[str, click.Command] = {"holdpay": holdpay, "holdpayd": holdpayd}
PAGE = DOCS / "page.md"


@pytest.mark.parametrize("page", links.pages(), ids=lambda page: str(page.relative_to(links.ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert list(links.problems(page, page.read_text())) == []


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("nowhere.md", "is no file of this repository"),
        ("../../beside", "is no file of this repository"),
        ("../config.example.toml#lnd", "names a heading of what is no page"),
        ("guarding.md#what-it-never-says", "names no heading of that page"),
        ("#here-neither", "names no heading of that page"),
        ("http://example.org", "is no https:// URL"),
        ("https://nohost", "is no https:// URL"),
        ("//example.org/x", "is no https:// URL"),
        ("mailto:somebody", "is no https:// URL"),
    ],
)
def test_a_link_that_leads_nowhere_is_told_with_its_line_and_why(target: str, why: str) -> None:
    assert list(links.problems(PAGE, f"# A page\n\nSee [this\nplace]({target}).")) == [
        f"docs/page.md:3: {target} {why}"
    ]


def test_links_that_hold_are_not_told() -> None:
    text = "# A `page`, of [ours](guarding.md)\n\n## A `page`, of ours\n\n```\n# no heading\n[no link](nowhere)\n```\n"
    text += (
        "[a](#a-page-of-ours) [b](#a-page-of-ours-1) [`c [d]`](guarding.md) `[no](link)` [e](https://example.org/x_(y))"
    )
    there = ["guarding.md", "#a-page-of-ours", "#a-page-of-ours-1", "guarding.md"]
    assert [link.target for link in links.links(text)][:4] == there
    assert list(links.problems(PAGE, text)) == []


@pytest.mark.parametrize("heading", ["# no heading", "text # no heading"])
def test_what_stands_in_code_is_no_heading(heading: str) -> None:
    assert links.anchors(f"```\n{heading}\n```\n{heading[1:]}") == set()


def test_the_site_has_each_page_once_and_its_navigation_names_it() -> None:
    pages = docs_site.site_pages()
    named = [name for _, names in docs_site.navigation(pages) for name in names]
    assert sorted(named) == sorted(pages.values())
    assert pages[links.ROOT / "README.md"] == "index.md"


def test_links_of_a_page_lead_where_they_lead_in_the_site(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("[a](#x) [b](https://example.org)")
    pages = docs_site.site_pages()
    assert docs_site.page_of_site(page, pages, tmp_path / "site") == page.read_text()
    operations = docs_site.page_of_site(DOCS / "operations.md", pages, tmp_path / "site")
    assert "](backup.md)" in operations
    assert "](files/contrib/grafana/holdpay.json)" in operations
    assert (tmp_path / "site" / "files" / "contrib" / "grafana" / "holdpay.json").is_file()
    guarding = docs_site.page_of_site(DOCS / "guarding.md", pages, tmp_path / "site")
    assert "](index.md#run-it-on-a-server)" in guarding
    assert "\n*Tests:* test_ladder.py, on" in guarding  # the site has no sources


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        (
            "A paragraph\n   of two lines.\n3. A list\n4. of two.",
            "A paragraph\n   of two lines.\n\n3. A list\n4. of two.",
        ),
        ("- A list\n  of long\n- items.\n", "- A list\n  of long\n- items.\n"),
        ("- A list of\n`code`\n- and more.", "- A list of\n`code`\n- and more."),
        ("See:\n\n- a list.", "See:\n\n- a list."),
        ("```\nx\n- no list\n```", "```\nx\n- no list\n```"),
    ],
)
def test_a_list_is_one_in_the_site_too_where_no_blank_line_is_before_it(text: str, apart: str) -> None:
    assert docs_site.lists_apart(text) == apart


def test_each_arrow_of_a_state_diagram_is_a_row_in_the_site() -> None:
    page = (DOCS / "pair.md").read_text()
    shown = docs_site.diagrams_as_tables(page)
    assert "mermaid" not in shown
    drawn = [line for line in page.splitlines() if re.match(r"  \w+ -", line)]
    dashed = [line for line in drawn if " -.->|" in line]
    assert shown.count(" | a contradiction |") == len(dashed) > 0
    assert len(shown.splitlines()) == len(page.splitlines()) - page.count("```mermaid")


@pytest.mark.parametrize(
    ("html", "is_remote"),
    [
        ('<script src="https://cdn.example.org/x.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example.org/css">', True),
        ("<link rel=preconnect href=https://fonts.example.org>", True),
        ('<img alt="" src="http://example.org/x.png">', True),
        ('<script src="assets/x.js"></script><a href="https://example.org">x</a>', False),
        ('<link rel="canonical" href="https://example.org/">', False),
    ],
)
def test_a_page_that_fetches_something_from_elsewhere_is_found(html: str, is_remote: bool) -> None:
    assert docs_site.fetches(html) == is_remote


@pytest.mark.parametrize("key", keys_of(Settings))
def test_the_reference_has_every_key_with_what_it_must_be(key: str) -> None:
    part = (DOCS / "configuration.md").read_text().partition(f"\n### {key}\n")[2].partition("\n#")[0]
    assert "\nIt is " in part
    assert f"\n{key.partition('.')[2]} = " in part


def test_the_reference_has_every_command() -> None:
    page = (DOCS / "commands.md").read_text()
    for path in (
        "holdpay",
        "holdpay code",
        "holdpay orders explain",
        "holdpay rent messages",
        "holdpayd",
        "holdpayd payees add",
    ):
        part = page.partition(f" {path}\n")[2].partition("\n#")[0]
        assert f"Usage: {path} " in part


def test_a_man_page_has_every_command_that_the_reference_has_but_groups_that_only_hold_others() -> None:
    page = (DOCS / "commands.md").read_text()
    named = re.findall(r"^### holdpay (.+)$", page, re.MULTILINE)
    shown = re.findall(r'^\.SS "(.+)"$', command_page(Page("holdpay", 1, "", "", "", ()), holdpay, {}), re.MULTILINE)
    listed = [name.replace("\\-", "-") for name in shown]
    assert "rent messages" in listed
    assert set(listed) <= set(named)
    assert all(any(below.startswith(f"{name} ") for below in listed) for name in set(named) - set(listed))


def test_the_reference_has_every_call_with_a_word_about_it() -> None:
    page = (DOCS / "api.md").read_text()
    for method in pb.DESCRIPTOR.services_by_name["Holdpay"].methods:
        part = page.partition(f"\n### {method.name}\n")[2].partition("\n#")[0]
        assert len(part.split("\n\n")[1].split()) > 2, method.name
    assert all(f"\n### {name}\n" in page for name in pb.DESCRIPTOR.message_types_by_name)


def test_a_message_names_the_page_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert manual.page("operations.md") == str(DOCS / "operations.md")
    assert manual.page("operations.md", "Quarantine") == f'"Quarantine" in {DOCS / "operations.md"}'
    monkeypatch.setattr(manual, "_PACKAGE", tmp_path / "lib" / "python3.11" / "site-packages" / "holdpay")
    assert manual.page("operations.md") == "docs/operations.md"  # it is nowhere
    installed = tmp_path / "share" / "doc" / "holdpay" / "docs" / "operations.md"
    installed.parent.mkdir(parents=True)
    installed.touch()
    assert manual.page("operations.md") == str(installed)


def test_every_message_that_names_a_page_says_where_it_lies_and_the_page_has_what_it_names() -> None:
    named = 0
    for module in sorted((links.ROOT / "daemon" / "holdpay").rglob("*.py")):
        if "_pb" in module.parts:
            continue
        tree = ast.parse(module.read_text())
        notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in notes:
                assert not re.search(r"docs/\w+\.md", node.value), module
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "manual.page":
                name, *heading = (ast.literal_eval(argument) for argument in node.args)
                there = links.anchors((DOCS / name).read_text())
                assert not heading or links.anchors(f"# {heading[0]}") <= there, (module, heading)
                named += 1
    assert named > 8


CALL = re.compile(r"^(?:`+|\$ )?(holdpayd?) ((?=\S)[^`#|;&)>\n·]*)", re.MULTILINE)
"""What a line or a span of code begins with."""


@pytest.mark.parametrize("page", links.pages(), ids=lambda page: str(page.relative_to(links.ROOT)))
def test_each_command_of_a_page_exists_with_the_options_that_it_shows(page: Path) -> None:
    code = "\n".join(span[0] for span in links.CODE.finditer(page.read_text()))
    for program, words in CALL.findall(code):
        unknown = list(unknown_words(PROGRAMS[program], words.split()))
        assert not unknown, f"{program} {words}: {unknown}"


def test_a_command_or_an_option_that_is_unknown_is_found() -> None:
    assert list(unknown_words(PROGRAMS["holdpay"], ["orders", "shwo", "ORDER"])) == ["shwo"]
    assert list(unknown_words(PROGRAMS["holdpay"], ["orders", "show", "ORDER", "[--jsn]"])) == ["--jsn"]
    assert list(unknown_words(PROGRAMS["holdpay"], ["--socket", "X", "code", "usa", "openai", "--max-price=1"])) == []


def unknown_words(command: click.Command, words: list[str]) -> Iterator[str]:
    """Of a command line as pages show it: options and commands that are none. What an argument is nobody can tell."""
    known = options_of(command)
    for word in (word.strip("[],.:…\"'") for word in words):
        if word.startswith("--") and word != "--":
            if word.partition("=")[0] not in known:
                yield word
        elif isinstance(command, click.Group) and re.fullmatch(r"[a-z-]+", word):
            if word not in command.commands:
                yield word
                return
            command = command.commands[word]
            known |= options_of(command)


def options_of(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }
