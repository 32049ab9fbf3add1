"""What the pages show: their commands, their YAML, and the changes they propose to the code.

Belongs here: finding fenced blocks in Markdown, and laying a shown change over a copy of the code.
Does not: running anything.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [ROOT / "CONTRIBUTING.md", ROOT / "README.md", ROOT / "deploy" / "README.md"]
) + sorted((ROOT / "docs").glob("*.md"))
PROGRAMS = ("forecast", "make", "dagster", "python", "pytest", "cp", "export")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
_INLINE = re.compile("`((?:" + "|".join(PROGRAMS) + ") [^`]+)`")


@dataclass(frozen=True)
class Shown:
    """A piece of a page; `line` counts from 1."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.text.splitlines()[0]}"

    @property
    def words(self) -> list[str]:
        """A command as a shell would split it, without its comment and where its output goes."""
        words = shlex.split(self.text, comments=True)
        return words[: words.index(">")] if ">" in words else words


def blocks(page: Path, kind: str) -> list[Shown]:
    """The fenced blocks of one language; '' is what has none."""
    text = page.read_text()
    return [
        Shown(str(page.relative_to(ROOT)), text[: found.start()].count("\n") + 2, found[2])
        for found in _FENCE.finditer(text)
        if found[1] == kind
    ]


def commands(page: Path, inline: bool = False) -> list[Shown]:
    """The commands of the blocks without a language, in order; with `inline` those in sentences.

    A block that holds a command holds nothing but commands.
    """
    found = []
    for block in blocks(page, ""):
        joined = block.text.replace("\\\n", " ")
        lines = [(n, line) for n, line in enumerate(joined.splitlines()) if line.strip()]
        runs = [(n, line) for n, line in lines if line.split()[0] in PROGRAMS]
        if runs:
            assert len(runs) == len(lines), f"{block}: a line that is no command"
            found += [Shown(block.page, block.line + n, line.strip()) for n, line in runs]
    if inline:
        bare = _FENCE.sub(lambda block: "\n" * block[0].count("\n"), page.read_text())
        found += [
            Shown(
                str(page.relative_to(ROOT)),
                bare[: m.start()].count("\n") + 1,
                " ".join(m[1].split()),
            )
            for m in _INLINE.finditer(bare)
        ]
    return found


@dataclass(frozen=True)
class Change:
    """A change of one file: `before` (empty: a new file) becomes `after`; `lines` it takes."""

    path: str
    before: str
    after: str
    lines: int


def changes(diff: str) -> list[Change]:
    """What a `diff` block changes: a header `+++ path`, then pieces parted by `@@`."""
    found = []
    for part in re.split(r"^\+\+\+ ", diff, flags=re.M)[1:]:
        path, _, body = part.partition("\n")
        for piece in re.split(r"^@@.*\n", body, flags=re.M):
            lines = [line for line in piece.splitlines() if line]
            old = [line[1:] for line in lines if line[0] in " -"]
            new = [line[1:] for line in lines if line[0] in " +"]
            if lines:
                moved = sum(line[0] in "+-" for line in lines)
                found.append(Change(path.strip(), _text(old), _text(new), moved))
    return found


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def lay_over(diff: str, root: Path) -> None:
    """Make the change in the copy of the code under `root`.

    Raises:
        AssertionError: what it would replace is not there, or there twice.
    """
    for change in changes(diff):
        path = root / change.path
        if not change.before:
            assert not path.exists(), f"{change.path} is there already"
            path.write_text(change.after)
            continue
        text = path.read_text()
        assert text.count(change.before) == 1, f"{change.path}: not once:\n{change.before}"
        path.write_text(text.replace(change.before, change.after))
