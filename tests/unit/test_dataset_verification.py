"""Specifications of datasets, and what is found when a folder is compared with one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from datasets_prep.cli import run
from datasets_prep.download import specification, verification
from datasets_prep.download.verification import Spec, read_spec, verify
from datasets_prep.errors import OptionError

COUNT = 12


@pytest.fixture
def folder(tmp_path):
    """A small dataset like WebSight."""
    (tmp_path / "images" / "more").mkdir(parents=True)
    lines = []
    for n in range(COUNT):
        image = f"images/{'more/' if n % 2 else ''}{n}.png"
        (tmp_path / image).write_bytes(b"\x89PNG" + bytes(n + 1))
        lines.append(json.dumps({"image": image, "prompt": f"page {n}"}))
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / ".tieredstore.json").write_text("{}")
    return tmp_path


@pytest.fixture
def spec():
    """The specification that is shipped, of fewer records."""
    websight = read_spec("websight")
    assert websight.images.count == websight.jsonl[0].records == 79413
    lines = replace(websight.jsonl[0], records=COUNT)
    return replace(websight, jsonl=(lines,), images=replace(websight.images, count=COUNT))


def test_a_whole_dataset_passes(folder, spec):
    told = []
    report = verify(folder, spec, lambda done, total: told.append((done, total)))
    assert report.ok
    assert report.lines == [
        "✓ Found 12 records in prompts.jsonl",
        "✓ Found 12 images",
        "✓ Dataset verification passed!",
    ]
    assert told[-1] == (12, 12)


def test_names_at_the_top(spec):
    assert spec.top == {"prompts.jsonl", "images"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "prompts.jsonl:3: no valid JSON"),
        ("", "prompts.jsonl:3: an empty line"),
        ("[1]", "prompts.jsonl:3: list, expected a JSON object"),
        ('{"prompt": "x"}', "prompts.jsonl:3: has no 'image' or 'image_path' or 'file_name'"),
        ('{"image": "images/0.png"}', "prompts.jsonl:3: has no 'prompt' or 'text'"),
        ('{"image": "images/0.png", "prompt": ""}', "prompts.jsonl:3: has no 'prompt'"),
        ('{"image": 3, "prompt": "x"}', "prompts.jsonl:3: its image is int, expected a path"),
        ('{"image": "images/99.png", "prompt": "x"}', "its image 'images/99.png' is not there"),
        ('{"image": "../x.png", "prompt": "x"}', "its image '../x.png' is not there"),
        ("[" * 5000, "prompts.jsonl:3: no valid JSON"),
        ("\udcff", "prompts.jsonl:3: no valid JSON"),
    ],
)
def test_a_bad_record_is_named_by_its_line(folder, spec, line, says):
    file = folder / "prompts.jsonl"
    lines = file.read_text().splitlines()
    lines[2] = line
    file.write_bytes("".join(f"{each}\n" for each in lines).encode("utf-8", "surrogateescape"))
    report = verify(folder, spec)
    assert not report.ok
    assert len(report.lines) == 3
    assert says in report.lines[0]
    assert report.lines[0].startswith("✗ ")
    assert report.lines[-1] == "✗ Dataset verification failed: 1 problem"


@pytest.mark.parametrize("name", ["0.png", "./images/0.png", "images//0.png"])
def test_images_may_be_named_from_their_folder(folder, spec, name):
    record = json.dumps({"file_name": name, "text": "x"})
    (folder / "prompts.jsonl").write_text(f"{record}\n" * COUNT)
    assert verify(folder, spec).ok


def test_a_last_line_without_an_end_counts(folder, spec):
    file = folder / "prompts.jsonl"
    file.write_text(file.read_text().rstrip("\n"))
    assert verify(folder, spec).ok


def test_counts_and_missing_things(folder, spec):
    (folder / "images" / "0.png").unlink()
    (folder / "images" / "2.png").write_bytes(b"")
    report = verify(folder, spec)
    assert report.problems == 3
    assert "✗ prompts.jsonl:1: its image 'images/0.png' is not there" in report.lines
    assert "✗ images/: 11 images, expected 12" in report.lines
    assert "✗ images/2.png: is empty" in report.lines


def test_what_is_missing_as_a_whole(tmp_path, spec):
    report = verify(tmp_path, spec)
    assert report.lines == [
        "✗ prompts.jsonl: is missing",
        "✗ images/: is missing",
        "✗ images/: 0 images, expected 12",
        "✗ Dataset verification failed: 3 problems",
    ]


def test_many_problems_are_counted(folder, spec):
    (folder / "prompts.jsonl").write_text("x\n" * 1000)
    report = verify(folder, spec)
    assert report.problems == 1001
    assert len(report.lines) < 30
    assert "✗ … and 981 more of these" in report.lines


def test_names_cannot_steer_a_terminal(folder, spec):
    (folder / "prompts.jsonl").write_text('{"image": "\\u001b[2J\\n", "prompt": "x"}\n' * COUNT)
    assert all(line.isprintable() for line in verify(folder, spec).lines)


def test_a_line_of_any_length_takes_little_memory(folder, spec, monkeypatch):
    monkeypatch.setattr(verification, "_LONGEST", 1000)
    file = folder / "prompts.jsonl"
    file.write_text(file.read_text() + '"' + "x" * 5000 + '"\n')
    report = verify(folder, spec)
    assert report.lines[0] == "✗ prompts.jsonl:13: longer than 1000 bytes"
    assert report.problems == 2


def test_images_are_opened(folder, spec):
    image = pytest.importorskip("PIL.Image")
    for n, path in enumerate(sorted((folder / "images").rglob("*.png"))):
        image.new("RGB", (4, n + 1)).save(path)
    opened = replace(spec, images=replace(spec.images, open=True))
    assert "✓ Opened 12 images" in verify(folder, opened).lines
    whole = (folder / "images" / "4.png").read_bytes()
    (folder / "images" / "4.png").write_bytes(whole[:45])
    (folder / "images" / "6.png").write_bytes(b"no image")
    report = verify(folder, opened)
    assert report.problems == 2
    assert all("does not open" in line for line in report.lines[2:4])


def test_without_pillow_nothing_is_opened(folder, spec, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    opened = replace(spec, images=replace(spec.images, open=True))
    report = verify(folder, opened)
    assert report.ok
    assert "! Images were not opened: Pillow is not installed" in report.lines


def own_check(folder):
    if not (folder / "LICENSE").exists():
        yield "LICENSE: is missing"


OWN = Spec("mine", checks=(own_check,))


def test_a_specification_in_python(folder, tmp_path, monkeypatch):
    report = verify(folder, OWN)
    assert report.lines[0] == "✗ LICENSE: is missing"
    (tmp_path / "my_spec.py").write_text(
        "from datasets_prep.download.specification import Spec\nSPEC = Spec('x', ('a.txt',))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert read_spec("my_spec:SPEC").files == ("a.txt",)
    for wrong in ("my_spec:NONE", "my_spec:__name__", "no_such:SPEC"):
        with pytest.raises(OptionError, match="specification"):
            read_spec(wrong)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("files = 3", "files is 3, expected a list of texts"),
        ("fils = []", "unknown key 'fils'"),
        ("[[jsonl]]\nrecords = 3", "jsonl: file is missing"),
        ("[[jsonl]]\nfile = 'x'\nrecords = -1", "records is -1, expected a whole number"),
        ("[images]\nfolder = 'x'\nopen = 1", "open is 1, expected true or false"),
        ("images = 3", "images is 3, expected a table"),
        ("jsonl = 3", "jsonl is 3, expected a list of tables"),
        ("[[", "no valid TOML"),
    ],
)
def test_a_wrong_specification_names_the_key(tmp_path, text, says):
    file = tmp_path / "spec.toml"
    file.write_text(text)
    with pytest.raises(OptionError, match="specification ") as caught:
        read_spec(file)
    assert says in str(caught.value)


def test_a_specification_that_is_not_there():
    with pytest.raises(OptionError, match="expected one of websight"):
        read_spec("nothing")
    with pytest.raises(OptionError, match="cannot be read"):
        read_spec("no/such.toml")


def test_by_the_command(folder, tmp_path, capsys):
    text = (
        specification.resources.files("datasets_prep.download.specs") / "websight.toml"
    ).read_text()
    own = tmp_path / "own.toml"
    own.write_text(text.replace("79413", str(COUNT)))
    assert run(["verify", str(folder), "--spec", str(own)]) == 0
    assert "✓ Dataset verification passed!" in capsys.readouterr().out
    assert run(["verify", str(folder)]) == 1
    assert "12 records, expected 79413" in capsys.readouterr().out
    assert run(["verify", str(tmp_path / "none")]) == 2
