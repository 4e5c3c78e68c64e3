"""What must hold for the tracked files themselves: no traces of a machine, small files."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import tieredstore

ROOT = Path(__file__).parents[2]

TRACES = {
    "a machine's path": re.compile(r"(?<![\w./-])/(?:home|Users|root|work|opt|mnt)/[\w.-]+"),
    "a temporary folder of one machine": re.compile(r"(?<![\w.])/tmp/(?!…)[\w.-]+"),
    "a package index": re.compile(r"(?i)--(?:extra-)?index-url|--find-links|--trusted-host"),
    "an address of a registry": re.compile(
        r"(?i)https?://[\w.-]*(?:pypi|pythonhosted|artifactory|nexus|devpi)[\w.-]*"
    ),
    "a hash of a package": re.compile(r"--hash="),
}
LINES, BODY, PARAMETERS = 400, 60, 6


def tracked() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("no git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def traces(text: str) -> list[str]:
    return [what for what, pattern in TRACES.items() if pattern.search(text)]


def test_tracked_files_name_no_machine() -> None:
    found = {}
    for path in tracked():
        if path == Path(__file__):
            continue
        here = traces(path.read_text(encoding="utf-8"))
        if here:
            found[str(path.relative_to(ROOT))] = here
    assert found == {}


@pytest.mark.parametrize(
    "text",
    ["cd /home/me/x", '"/root/data"', "pip install --index-url x", "https://pypi.org/simple"],
)
def test_a_trace_would_be_found(text: str) -> None:
    assert traces(text)


def test_constraints_are_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert pinned
    for line in pinned:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.+!]*", line), line


# -- sizes --------------------------------------------------------------------------------------


def sources() -> list[Path]:
    folders = [ROOT / "src", *(ROOT / "plugins").glob("*/src")]
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def functions(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, lines without the docstring, and parameters without ``self``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        assert node.end_lineno is not None
        docstring = ast.get_docstring(node, clean=False)
        said = 0 if docstring is None else docstring.count("\n") + 1
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        if names and names[0] in {"self", "cls"}:
            names = names[1:]
        yield node.name, node.end_lineno - node.lineno + 1 - said, len(names)


def test_files_are_small() -> None:
    sizes = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in sources()}
    assert {p: n for p, n in sizes.items() if n > LINES} == {}


def test_functions_are_short_and_take_few_parameters() -> None:
    found = [
        (f"{p.relative_to(ROOT)}: {name}", lines, parameters)
        for p in sources()
        for name, lines, parameters in functions(p)
    ]
    assert len(found) > 100
    assert [f for f in found if f[1] > BODY] == []
    assert [f for f in found if f[2] > PARAMETERS] == []


def test_every_source_file_says_what_belongs_in_it() -> None:
    silent = [
        str(p.relative_to(ROOT))
        for p in sources()
        if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_datasets_prep_uses_public_names_only() -> None:
    for path in sorted((ROOT / "src" / "datasets_prep").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tieredstore"):
                assert node.module == "tieredstore", f"{path}: imports {node.module}"
                private = {a.name for a in node.names} - set(tieredstore.__all__)
                assert not private, f"{path}: {sorted(private)} are no public names"
            if isinstance(node, ast.Import):
                inner = [a.name for a in node.names if a.name.startswith("tieredstore.")]
                assert not inner, f"{path}: imports {inner}"
