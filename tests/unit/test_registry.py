"""Backends by name, with plugins that are really installed: a dist-info folder on sys.path."""

import subprocess
import sys
from pathlib import Path

import pytest

import tieredstore
from tieredstore import registry
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import ConfigError

GOOD = (
    "from tieredstore.backends.local import LocalBackend\nclass Backend(LocalBackend):\n    pass\n"
)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution that offers backends, as an installer would leave it."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def installed(distribution: str, points: dict[str, str], module: str = GOOD) -> Path:
        info = site / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[tieredstore.backends]\n{lines}")
        (site / f"{distribution}.py").write_text(module)
        return site

    yield installed
    for module in [m for m in sys.modules if m.startswith("plug_")]:
        del sys.modules[module]


def test_the_built_in_ones():
    assert {"fsspec", "local", "runpod"} <= set(registry.names())
    assert registry.load("local") is LocalBackend
    registry.check_clashes()


def test_a_plugin_serves_a_tier(install, tmp_path):
    install("plug_a", {"shelf": "plug_a:Backend"})
    assert "shelf" in registry.names()
    assert "plug_a" not in sys.modules
    rows = [
        {"name": "local", "backend": "local", "path": str(tmp_path / "data")},
        {"name": "far", "backend": "shelf", "path": str(tmp_path / "far"), "durable": True},
    ]
    store = tieredstore.open_store({"tier": rows})
    with store.create("a") as stage:
        (stage.path / "f").write_text("x")
    assert [o.action for o in store.promote("a")] == ["copied"]
    assert type(store.tier("far").backend).__module__ == "plug_a"
    registry.check_clashes()


def test_only_the_one_asked_for_is_loaded(install):
    install("plug_a", {"shelf": "plug_a:Backend"})
    install("plug_b", {"broken": "plug_b:Backend"}, "raise RuntimeError('loaded for nothing')\n")
    registry.load("shelf")
    registry.load("local")
    assert "plug_a" in sys.modules
    assert "plug_b" not in sys.modules


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("raise RuntimeError('two\\nlines')\n", "RuntimeError: two lines"),
        ("import a_module_that_nobody_has\n", "a_module_that_nobody_has"),
        ("x = 1\n", "Backend"),
        ("def broken(:\n", "SyntaxError"),
        ("Backend = 5\n", "no subclass"),
        ("class Backend: pass\n", "no subclass"),
    ],
)
def test_a_broken_plugin_is_one_line_that_names_it(install, tmp_path, module, expected):
    install("plug_c", {"bad": "plug_c:Backend"}, module)
    row = {"name": "x", "backend": "bad", "path": str(tmp_path)}
    with pytest.raises(ConfigError) as caught:
        tieredstore.open_store({"tier": [row]})
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("config: [[tier]] 'x': backend: backend 'bad' (plug_c:Backend)")
    assert expected in message
    assert registry.load("local") is LocalBackend


def test_two_plugins_of_one_name(install):
    install("plug_a", {"shelf": "plug_a:Backend"})
    install("plug_b", {"shelf": "plug_b:Backend"})
    for call in (lambda: registry.load("shelf"), registry.check_clashes):
        with pytest.raises(ConfigError) as caught:
            call()
        for part in ("'shelf' is offered twice", "plug_a:Backend", "plug_b:Backend", "uninstall"):
            assert part in str(caught.value)
    assert "plug_a" not in sys.modules
    assert "plug_b" not in sys.modules


def test_a_plugin_that_takes_a_built_in_name(install):
    install("plug_a", {"local": "plug_a:Backend"})
    with pytest.raises(ConfigError, match=r"'local' is offered twice.*uninstall plug_a"):
        registry.check_clashes()


def test_the_command_refuses_a_plugin_that_takes_a_built_in_name(install, tmp_path):
    site = install("plug_a", {"fsspec": "plug_a:Backend"})
    command = [sys.executable, "-m", "tieredstore.cli", "status"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "'fsspec' is offered twice" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_same_distribution_found_twice_is_no_clash(install, tmp_path, monkeypatch):
    site = install("plug_a", {"shelf": "plug_a:Backend"})
    again = tmp_path / "again"
    again.symlink_to(site)
    monkeypatch.syspath_prepend(str(again))
    registry.check_clashes()
    assert registry.load("shelf").__module__ == "plug_a"
