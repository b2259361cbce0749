"""The tables of docs/security.md that tests hold against what is so."""

from pathlib import Path

SECURITY = Path(__file__).parent.parent / "docs" / "security.md"


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    section = SECURITY.read_text(encoding="utf-8").partition(f"# {heading}\n")[2].partition("\n## ")[0]
    lines = iter(section.splitlines())
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]
