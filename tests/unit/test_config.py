"""Every wrong configuration gives one line that names file, table and key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tieredstore
from tieredstore import config
from tieredstore.errors import ConfigError

LOCAL = '[[tier]]\nname = "local"\nbackend = "local"\npath = "data"\n'


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    for name in (config.CONFIG_VARIABLE, config.VOLUME_VARIABLE, config.DEBUG_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "RUNPOD_VOLUME", str(tmp_path / "no-volume"))
    return tmp_path


def refused(text: str, file: str = "tieredstore.toml") -> str:
    Path(file).write_text(text)
    with pytest.raises(ConfigError) as caught:
        tieredstore.open_store(file)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{file}: ")
    return message


WRONG = {
    "unknown key of the file": ("[[tiers]]\n", ["unknown key 'tiers'", "[[tier]]"]),
    "unknown key of a tier": (LOCAL + "pth = 1\n", ["[[tier]] 'local'", "unknown key 'pth'"]),
    "no path": ('[[tier]]\nname = "a"\nbackend = "local"\n', ["[[tier]] 'a'", "path is missing"]),
    "no name": ('[[tier]]\nbackend = "local"\npath = "d"\n', ["[[tier]] 1", "name is missing"]),
    "no backend": ('[[tier]]\nname = "a"\npath = "d"\n', ["[[tier]] 'a'", "backend is missing"]),
    "empty name": ('[[tier]]\nname = ""\nbackend = "local"\npath = "d"\n', ["name is missing"]),
    "name of lines": (
        '[[tier]]\nname = "a\\nb"\nbackend = "local"\npath = "d"\n',
        ["name", "control characters"],
    ),
    "path of a wrong type": (
        '[[tier]]\nname = "a"\nbackend = "local"\npath = 5\n',
        ["[[tier]] 'a': path is 5", "expected text"],
    ),
    "empty path": (
        '[[tier]]\nname = "a"\nbackend = "local"\npath = ""\n',
        ["path is ''", "expected the path of a folder"],
    ),
    "name of a wrong type": ('[[tier]]\nname = 7\nbackend = "local"\n', ["name is 7", "text"]),
    "durable of a wrong type": (LOCAL + "durable = 1\n", ["durable is 1", "true or false"]),
    "deadline of a wrong type": (LOCAL + "deadline = true\n", ["deadline is True", "seconds"]),
    "deadline of zero": (LOCAL + "deadline = 0\n", ["deadline is 0", "positive"]),
    "populate of a wrong type": (
        LOCAL + 'populate = "yes"\n',
        ["populate is 'yes'", "true or false"],
    ),
    "endless deadline": (LOCAL + "deadline = inf\n", ["deadline is inf", "positive"]),
    "also_read of a wrong type": (LOCAL + 'also_read = "x"\n', ["also_read is 'x'", "a list"]),
    "also_read of numbers": (LOCAL + "also_read = [1]\n", ["also_read is [1]", "list of texts"]),
    "also_read without a name": (LOCAL + 'also_read = ["x"]\n', ["also_read: layout 'x'"]),
    "layout without a name": (LOCAL + 'layout = "data"\n', ["layout: layout 'data'", "{name}"]),
    "layout that escapes": (LOCAL + 'layout = "../{name}"\n', ["layout", "'..'"]),
    "unknown backend": (
        '[[tier]]\nname = "a"\nbackend = "ftp2"\n',
        ["[[tier]] 'a': backend: no backend 'ftp2'", "local, runpod"],
    ),
    "two of one name": (LOCAL + LOCAL, ["[[tier]] 2: name 'local' is taken by [[tier]] 1"]),
    "empty file": ("", ["expected at least one [[tier]] table"]),
    "no tiers": ("tier = []\n", ["expected at least one [[tier]] table"]),
    "one bracket": ('[tier]\nname = "a"\n', ["expected at least one [[tier]] table"]),
    "tiers of a wrong type": ("tier = [1]\n", ["tier 1 is 1", "[[tier]]"]),
    "tiers of text": ('tier = "local"\n', ["expected at least one [[tier]] table"]),
    "no TOML": ("[[tier]\n", ["no valid TOML", "line 1"]),
    "first tier no folder": (
        '[[tier]]\nname = "m"\nbackend = "fsspec"\nurl = "memory://x"\n',
        ["[[tier]] 'm': backend: the first tier", "expected a folder"],
    ),
    "fsspec without url": (
        LOCAL + '[[tier]]\nname = "m"\nbackend = "fsspec"\n',
        ["[[tier]] 'm': url is missing"],
    ),
    "fsspec with a folder": (
        LOCAL + '[[tier]]\nname = "m"\nbackend = "fsspec"\nurl = "file:///x"\n',
        ["[[tier]] 'm'", 'backend = "local"'],
    ),
    "options of a wrong type": (
        LOCAL + '[[tier]]\nname = "m"\nbackend = "fsspec"\nurl = "memory://x"\noptions = "y"\n',
        ["[[tier]] 'm': options is text, expected a table"],
    ),
    "nobody's home": (
        '[[tier]]\nname = "a"\nbackend = "local"\npath = "~nobody-at-all/x"\n',
        ["[[tier]] 'a': path is '~nobody-at-all/x'"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_that_names_the_place(case):
    text, expected = WRONG[case]
    message = refused(text)
    for part in expected:
        assert part in message


def test_bytes_that_are_no_text(bare):
    Path("tieredstore.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"^tieredstore\.toml: no valid TOML"):
        tieredstore.open_store("tieredstore.toml")


def test_s3(bare):
    Path("tieredstore.toml").write_text(
        LOCAL + '[[tier]]\nname = "s3"\nbackend = "s3"\nurl = "s3://bucket/prefix"\n'
        'endpoint_url = "https://s3api-eu-ro-1.runpod.io"\nregion = "EU-RO-1"\ndurable = true\n'
    )
    backend = tieredstore.open_store().tier("s3").backend
    assert backend.place == "s3://bucket/prefix"
    assert not backend.access.preset.bulk_delete


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('url = "https://bucket"', "expected s3://bucket or s3://bucket/prefix"),
        ('url = "s3://b"\nendpoint_url = "host:9000"', "expected http(s)://host[:port]"),
        ('url = "s3://b"\npreset = "minio"', "preset is 'minio', expected one of 'runpod'"),
        ('url = "s3://b"\nsecret = "x"', "unknown key 'secret'"),
        ("durable = true", "url is missing"),
    ],
)
def test_what_s3_cannot_use(bare, line, said):
    message = refused(LOCAL + f'[[tier]]\nname = "s3"\nbackend = "s3"\n{line}\n')
    assert "[[tier]] 's3': " in message
    assert said in message


def test_s3_through_fsspec(bare):
    Path("tieredstore.toml").write_text(
        LOCAL + '[[tier]]\nname = "s3"\nbackend = "fsspec"\nurl = "s3://bucket/prefix"\n'
        'options = { endpoint_url = "http://127.0.0.1:9000" }\ndurable = true\n'
    )
    store = tieredstore.open_store()
    assert [t.name for t in store.tiers] == ["local", "s3"]
    assert store.tier("s3").backend.place == "s3://bucket/prefix"
    assert store.tier("s3").durable


def test_a_first_path_that_is_a_file(bare):
    Path("data").write_text("x")
    assert "[[tier]] 'local': path: " in refused(LOCAL)
    assert "is no folder" in refused(LOCAL)


def test_data_that_is_a_file_without_any_configuration(bare):
    Path("data").write_text("x")
    with pytest.raises(ConfigError, match=r"\./data.*is no folder"):
        tieredstore.open_store()


def test_a_lower_path_that_is_a_file_is_a_tier_that_fails(bare):
    Path("file").write_text("x")
    Path("tieredstore.toml").write_text(
        LOCAL + '[[tier]]\nname = "low"\nbackend = "local"\npath = "file"\n'
    )
    _, low = tieredstore.open_store().locate("shakespeare")
    assert low.state == "unreachable"
    assert "file" in low.detail


def test_a_file_that_is_not_there(bare):
    with pytest.raises(ConfigError, match=r"^missing\.toml: cannot be read: No such file"):
        tieredstore.open_store("missing.toml")


def test_a_folder_instead_of_a_file(bare):
    with pytest.raises(ConfigError, match=r"Is a directory"):
        tieredstore.open_store(bare)


def test_the_variable_that_names_a_missing_file_is_named(bare, monkeypatch):
    monkeypatch.setenv("TIEREDSTORE_CONFIG", "gone.toml")
    with pytest.raises(ConfigError, match=r"^gone\.toml \(named by TIEREDSTORE_CONFIG\): cannot"):
        tieredstore.open_store()


@pytest.mark.parametrize("text", ["", "[tool]\n", "tool = 5\n", "[tool]\ntieredstore = 5\n"])
def test_a_pyproject_without_the_table(bare, text):
    message = refused(text, "pyproject.toml")
    assert "[tool.tieredstore]" in message


def test_a_pyproject_names_its_own_tables(bare):
    message = refused('[[tool.tieredstore.tier]]\nname = "a"\n', "pyproject.toml")
    assert "[[tool.tieredstore.tier]] 'a': backend is missing" in message


def test_a_pyproject_that_only_mentions_the_table_is_passed_over(bare):
    Path("pyproject.toml").write_text("# one day [tool.tieredstore] will stand here\n")
    assert [t.name for t in tieredstore.open_store().tiers] == ["local"]


def test_the_nearest_file_above_counts_and_paths_are_relative_to_it(bare, monkeypatch):
    Path("pyproject.toml").write_text(LOCAL.replace("[[tier]]", "[[tool.tieredstore.tier]]"))
    below = bare / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert tieredstore.open_store().tiers[0].backend.place == str(bare / "data")
    (bare / "a" / "tieredstore.toml").write_text(LOCAL)
    assert tieredstore.open_store().tiers[0].backend.place == str(bare / "a" / "data")


def test_the_variable_goes_before_the_folder_and_the_argument_before_both(bare, monkeypatch):
    Path("tieredstore.toml").write_text(LOCAL)
    Path("other.toml").write_text(LOCAL.replace("data", "other"))
    Path("third.toml").write_text(LOCAL.replace("data", "third"))
    monkeypatch.setenv("TIEREDSTORE_CONFIG", "other.toml")
    assert tieredstore.open_store().tiers[0].backend.place == str(bare / "other")
    assert tieredstore.open_store("third.toml").tiers[0].backend.place == str(bare / "third")


def test_without_any_configuration_data_and_the_volume_are_found(bare, monkeypatch):
    volume = bare / "volume"
    volume.mkdir()
    monkeypatch.setenv("TIEREDSTORE_RUNPOD_VOLUME", str(volume))
    local, runpod = tieredstore.open_store().tiers
    assert (local.name, local.durable, local.adopt) == ("local", False, True)
    assert (runpod.name, runpod.durable, runpod.adopt) == ("runpod", True, True)
    assert runpod.backend.place == str(volume)
    assert runpod.layout.folder("shakespeare") == "data/shakespeare"
    assert local.layout.folder("shakespeare") == "shakespeare/shakespeare"


def test_a_volume_that_is_named_and_not_there_is_said(bare, monkeypatch):
    class Said(tieredstore.Reporter):
        def __init__(self):
            self.said = []

        def skipped(self, tier, why):
            self.said.append((tier, why))

    monkeypatch.setenv("TIEREDSTORE_RUNPOD_VOLUME", str(bare / "unmounted"))
    said = Said()
    assert [t.name for t in tieredstore.open_store(reporter=said).tiers] == ["local"]
    ((tier, why),) = said.said
    assert tier == "runpod"
    assert str(bare / "unmounted") in why
    assert "TIEREDSTORE_RUNPOD_VOLUME" in why


def test_a_mapping_and_another_first_tier(bare):
    rows = [
        {"name": "local", "backend": "local", "path": "data"},
        {"name": "low", "backend": "local", "path": "low", "deadline": 2, "read_only": True},
    ]
    store = tieredstore.open_store({"tier": rows}, first=tieredstore.local_tier(bare / "mine"))
    first, low = store.tiers
    assert first.backend.place == str(bare / "mine")
    assert (low.name, low.deadline, low.read_only, low.writable) == ("low", 2.0, True, False)
    with pytest.raises(ConfigError, match=r"^config: unknown key 'x'"):
        tieredstore.open_store({"x": 1})


def test_which_tiers_are_filled_on_the_way(bare):
    Path("tieredstore.toml").write_text(
        LOCAL + '[[tier]]\nname = "s"\nbackend = "local"\npath = "s"\npopulate = true\n'
    )
    assert [t.populate for t in tieredstore.open_store().tiers] == [False, True]


REMOTE = {
    "memory": ({"backend": "fsspec", "url": "memory://x"}, False),
    "fsspec": ({"backend": "fsspec", "url": "s3://bucket/x"}, True),
    "s3": ({"backend": "s3", "url": "s3://bucket/x"}, True),
    "hf": ({"backend": "hf", "url": "hf://datasets/someone/something"}, True),
    "http": ({"backend": "http", "url": "http://127.0.0.1:9"}, True),
    "local": ({"backend": "local", "path": "low"}, False),
    "runpod": ({"backend": "runpod", "path": "volume"}, False),
}


@pytest.mark.parametrize("kind", REMOTE)
def test_offline_leaves_out_what_is_remote_and_names_it(bare, monkeypatch, kind):
    keys, remote = REMOTE[kind]
    rows = [
        {"name": "local", "backend": "local", "path": "data"},
        {"name": f"a {kind}", "durable": True, **keys},
    ]
    place = tieredstore.open_store({"tier": rows}).tiers[1].backend.place
    monkeypatch.setenv("TIEREDSTORE_OFFLINE", "1")
    first, tier = tieredstore.open_store({"tier": rows}).tiers
    assert (first.backend.remote, tier.durable, tier.backend.place) == (False, True, place)
    located = tier.locate("name")
    assert ("offline (TIEREDSTORE_OFFLINE)" in located.detail) is remote
    assert (located.state == "unreachable") is remote
    with pytest.raises(ConfigError, match="unknown key"):  # checked all the same
        tieredstore.open_store({"tier": [rows[0], {**rows[1], "nonsense": 1}]})


@pytest.mark.parametrize(("value", "expected"), [("", False), ("0", False), ("1", True)])
def test_debug(monkeypatch, value, expected):
    monkeypatch.setenv("TIEREDSTORE_DEBUG", value)
    assert config.debug() is expected


def test_a_place_that_cannot_be_opened_fails_alone(bare):
    Path("tieredstore.toml").write_text(
        LOCAL + '[[tier]]\nname = "odd"\nbackend = "fsspec"\nurl = "nosuchprotocol://u:pw@x/y"\n'
    )
    store = tieredstore.open_store()
    with store.create("a") as stage:
        (stage.path / "f").write_text("x")
    assert store.restore("a").source == "local"
    odd = store.locate("a")[1]
    assert odd.state == "unreachable"
    assert "nosuchprotocol" in odd.detail
    assert "pw" not in odd.tier.backend.place


def test_a_hit_with_every_kind_of_tier_loads_nothing_heavy(bare):
    Path("tieredstore.toml").write_text(
        LOCAL + '[[tier]]\nname = "m"\nbackend = "fsspec"\nurl = "memory://x"\n'
        '[[tier]]\nname = "v"\nbackend = "runpod"\npath = "vol"\n'
    )
    with tieredstore.open_store().create("a") as stage:
        (stage.path / "f").write_text("x")
    program = (
        "import sys, tieredstore\n"
        "assert tieredstore.open_store().restore('a').source == 'local'\n"
        "heavy = {'fsspec', 'filelock', 'rich', 'importlib.metadata', 'hashlib', 'secrets'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"


def test_importing_loads_no_toml_either():
    program = "import sys, tieredstore; print('tomllib' in sys.modules, 'rich' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_variables_in_path_and_layout(bare, monkeypatch):
    monkeypatch.setenv("SCRATCH", str(bare / "s"))
    monkeypatch.setenv("USER", "me")
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    tables = [
        {"name": "node", "backend": "local", "path": "${SLURM_TMPDIR:-./tmp/$USER}"},
        {"name": "shared", "backend": "local", "path": "$SCRATCH", "layout": "$USER/{name}"},
    ]
    first, second = tieredstore.open_store({"tier": tables}).tiers
    assert first.backend.place == str(bare / "tmp" / "me")
    assert (second.backend.place, second.layout.folder("x")) == (str(bare / "s"), "me/x")
    monkeypatch.setenv("SLURM_TMPDIR", str(bare / "job"))
    assert tieredstore.open_store({"tier": tables}).tiers[0].backend.place == str(bare / "job")


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("SCRATCH", raising=False)
    message = refused('[[tier]]\nname = "a"\nbackend = "local"\npath = "$SCRATCH/x"\n')
    for said in ("[[tier]] 'a': path", "$SCRATCH is not set", "${SCRATCH:-…}"):
        assert said in message
