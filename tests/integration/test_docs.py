"""Runs every code block of README.md and docs/*.md, in order, in one folder for each page.

``python`` blocks are programs of their own; in ``console`` blocks the lines after ``$ `` are
commands and the others what they print (``…`` stands for anything); a ``toml`` block becomes
tieredstore.toml and must open as a store, a ``yaml`` block jobs.yaml, of which scripts can be
written. ``<!-- not run: reason -->`` right above a block
excuses it; a block of any other kind needs that.
"""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import tieredstore
from datasets_prep import slurm

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<excuse>\S.*?) -->\n\n?)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    excuse: str | None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") % 2 == 0, f"{page.name}: a code block is not closed"
    found = list(BLOCK.finditer(text))
    assert len(found) * 2 == text.count("\n```"), f"{page.name}: a code block was not recognised"
    for match in found:
        yield Block(match["kind"], match["text"], match["excuse"])


class Folder:
    """Where one page's blocks run: a folder and an environment of their own."""

    def __init__(self, path: Path) -> None:
        self.path = path / "folder"
        self.path.mkdir()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TIEREDSTORE_")}
        self.env = {
            **kept,
            "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{kept['PATH']}",
            "HOME": str(path),
            "COLUMNS": "200",
        }

    def run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout

    def python(self, text: str) -> None:
        self.run([sys.executable, "-c", text])

    def console(self, text: str) -> None:
        for command, expected in commands(text):
            if command.startswith("export "):
                name, _, value = command.removeprefix("export ").partition("=")
                self.env[name] = self.run(["bash", "-c", f"echo {value}"]).strip()
                continue
            printed = self.run(["bash", "-c", command])
            if expected:
                pattern = ".*".join(re.escape(part.strip()) for part in expected.split("…"))
                assert re.fullmatch(pattern, printed.strip(), re.DOTALL), f"{command}\n{printed}"

    def toml(self, text: str) -> None:
        file = self.path / "tieredstore.toml"
        if "[tool.tieredstore]" in text or "[[tool.tieredstore" in text:
            file = self.path / "pyproject.toml"
        file.write_text(text)
        assert tomllib.loads(text)
        assert tieredstore.open_store(file).tiers
        file.unlink()

    def yaml(self, text: str) -> None:
        file = self.path / "jobs.yaml"
        file.write_text(text)
        for job in slurm.load(file):
            assert slurm.render(job).text


def commands(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:].partition("  #")[0], ""))
        else:
            assert found, f"a console block begins with {line!r}, expected a command"
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line}".strip())
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_code_block_runs_or_says_why_not(page: Path, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for block in blocks(page):
        if block.excuse:
            continue
        run = getattr(folder, block.kind, None) if block.kind in KINDS else None
        assert run, f"{page.name}: a {block.kind or 'plain'} block needs '<!-- not run: … -->'"
        run(block.text)


KINDS = {"python", "console", "toml", "yaml"}


def test_a_page_that_lies_is_noticed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.console("$ echo one two\none …\n")
    with pytest.raises(AssertionError):
        folder.console("$ echo one\ntwo\n")
    with pytest.raises(AssertionError):
        folder.python("raise SystemExit(1)")


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: no {target}"
