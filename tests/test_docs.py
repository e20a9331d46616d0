"""References to the documentation lead somewhere: from code, from page to page, and down to the heading."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
REFERENCE: Final = re.compile(r"docs/([a-z0-9_/-]+\.md)((?:,\s+\"[^\"]+\")*)")
PAGE_IN_TICKS: Final = re.compile(r"`(?:docs/)?([a-z0-9_-]+\.md)`")
LINK: Final = re.compile(r"\]\(([^)#:]+?)(?:#[^)]*)?\)")
# Sections that come with the verbs for rotation and signing; the code below them is there first.
AWAITED: Final = {
    "trust.md": frozenset({"Changing trust", "Public parts", "Roots", "Rotation", "Signing"}),
    "spec.md": frozenset({"Lag"}),
}


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
            known = headings(page) | AWAITED.get(name, frozenset()) if page.exists() else set()
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
