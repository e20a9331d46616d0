"""References to the documentation lead somewhere: from code, from page to page, and down to the heading."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from typer.main import get_command

from messaging.cli.app import app
from messaging.settings import Settings

ROOT: Final = Path(__file__).resolve().parent.parent
REFERENCE: Final = re.compile(r"docs/([a-z0-9_/-]+\.md)((?:,\s+\"[^\"]+\")*)")
PAGE_IN_TICKS: Final = re.compile(r"`(?:docs/)?([a-z0-9_-]+\.md)`")
LINK: Final = re.compile(r"\]\(([^)#:]+?)(?:#[^)]*)?\)")


def texts() -> Iterator[tuple[Path, str]]:
    for top in ("messaging", "services", "scripts"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield path, path.read_text()


def pages() -> list[Path]:
    return sorted((ROOT / "docs").rglob("*.md"))


def headings(page: Path) -> set[str]:
    """Return the headings of a page, and what stands before a colon in them."""
    found = re.findall(r"^#+ (.+?)\s*$", page.read_text(), re.MULTILINE)
    return {*found, *(heading.partition(":")[0] for heading in found)}


def unfolded(text: str) -> str:
    """Return the text with lines of comments and docstrings joined, as a reference may be broken over two."""
    return re.sub(r"\n\s*#?\s*", " ", text)


def test_references_from_code_name_a_page_and_a_heading_that_exist() -> None:
    broken = []
    for path, text in texts():
        for name, quoted in REFERENCE.findall(unfolded(text)):
            page = ROOT / "docs" / name
            wanted = re.findall(r'"([^"]+)"', quoted)
            known = headings(page) if page.exists() else set()
            if not page.exists() or not set(wanted) <= known:
                broken.append(f"{path.relative_to(ROOT)}: docs/{name} {wanted}")

    assert broken == []


def test_pages_name_pages_that_exist() -> None:
    known = {page.name for page in [*pages(), *ROOT.glob("*.md")]}

    broken = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in [*pages(), *ROOT.glob("*.md")]
        for name in PAGE_IN_TICKS.findall(page.read_text())
        if name not in known
    ]

    assert broken == []


def test_links_lead_to_files() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [*pages(), *ROOT.glob("*.md")]
        for target in LINK.findall(re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL))
        if not (page.parent / target).exists()
    ]

    assert broken == []


def rows_of(page: Path, *titles: str) -> list[list[str]]:
    """Return the cells of all tables of a page whose first column has one of these titles."""
    found: list[list[str]] = []
    is_wanted, before = False, ""
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and not before.startswith("|"):
            is_wanted = cells[0] in titles
        elif line.startswith("|") and is_wanted and not set(line) <= set("|- "):
            found.append(cells)
        before = line
    return found


def test_each_guarantee_names_a_test_that_exists() -> None:
    rows = rows_of(ROOT / "docs" / "guarantees.md", "guarantee")
    named = [re.findall(r"`(tests/[a-z0-9_/.]+)`", row[-1]) for row in rows]

    assert len(rows) > 30
    assert [row[0] for row, tests in zip(rows, named, strict=True) if not tests] == []
    assert [test for tests in named for test in tests if not (ROOT / test).exists()] == []


def test_each_trap_of_the_broker_names_a_test_that_exists_or_says_that_there_is_none() -> None:
    rows = rows_of(ROOT / "docs" / "topology.md", "trap")
    named = [re.findall(r"`([a-z0-9_/]+\.py)`", row[-1]) for row in rows]
    known = {path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("*.py")}
    known |= {path.rpartition("/")[2] for path in known}

    assert len(rows) > 30
    assert [row[0] for row, tests in zip(rows, named, strict=True) if not tests and "none:" not in row[-1]] == []
    assert [test for tests in named for test in tests if test not in known] == []


def test_the_list_of_pages_has_them_all() -> None:
    index = ROOT / "docs" / "README.md"
    listed = set(LINK.findall(index.read_text()))

    assert {page.name for page in index.parent.glob("*.md")} - listed == {index.name}


def test_modules_that_the_architecture_names_exist_and_none_is_left_out() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([a-z_]+\.py)`", page))
    existing = {path.name for path in (ROOT / "messaging").rglob("*.py")}
    described_one_by_one = {
        path.name
        for folder in ("", "core", "runtime")
        for path in (ROOT / "messaging" / folder).glob("*.py")
        if path.name not in {"__init__.py", "__main__.py"}
    }

    of_services = {"contract.py", "handlers.py", "store.py"}
    assert named - existing - of_services == set()
    assert described_one_by_one - named == set()


def verbs_of(command: Any, *words: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each verb below a command with its visible options, each option by one of its names."""
    options = {min(one.opts) for one in command.params if one.param_type_name == "option" and not one.hidden}
    yield " ".join(words), options
    for word, below in getattr(command, "commands", {}).items():
        yield from verbs_of(below, *words, word)


def test_the_page_of_the_command_line_names_every_verb_and_every_option() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    found = dict(verbs_of(get_command(app)))

    assert "dead replay" in found
    assert [verb for verb in found if not re.search(rf"(`|messaging |, ){verb}\b", page)] == []
    assert sorted({option for options in found.values() for option in options if f"`{option}" not in page}) == []


def test_the_page_of_the_command_line_names_every_setting() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    settings = [f"MESSAGING_{name.upper()}" for name in Settings.model_fields]

    assert [name for name in settings if f"`{name}`" not in page] == []
