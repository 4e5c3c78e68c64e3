"""Variables in paths and layouts: what they stand for, and every value that is refused."""

import pytest

from tieredstore.errors import ConfigError
from tieredstore.variables import Variables, uses

SET = {
    "USER": "me",
    "SCRATCH": "/scratch/me",
    "EMPTY": "",
    "PROJECT": "a/b",
    "RELATIVE": "here",
    "UP": "/scratch/../etc",
    "LINES": "/a\nb",
    "NUL": "/a\0b",
    "BRACES": "{name}",
    "DOLLAR": "/a$USER",
}


def variables():
    return Variables(SET, "tieredstore.toml: [[tier]] 'scratch': path")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("data", "data"),
        ("$SCRATCH/data", "/scratch/me/data"),
        ("${SCRATCH}data", "/scratch/medata"),
        ("/s/$USER/x", "/s/me/x"),
        ("/s/${USER}_x/$PROJECT", "/s/me_x/a/b"),
        ("./$RELATIVE", "./here"),
        ("/s/${USER:-nobody}", "/s/me"),
        ("/s/${UNSET:-nobody}", "/s/nobody"),
        ("${SLURM_TMPDIR:-/node/x}/y", "/node/x/y"),
        ("${UNSET:-${ALSO:-/node}/$USER}/y", "/node/me/y"),
        ("/s/${UNSET:-$USER}", "/s/me"),
        ("${EMPTY:-/node}", "/node"),
        ("/s/${EMPTY:-}x", "/s/x"),
        ("/cost/$$5/$$USER", "/cost/$5/$USER"),
        ("$DOLLAR", "/a$USER"),  # what a value holds is no variable
        ("~/x", "~/x"),
    ],
)
def test_path(text, path):
    assert variables().path(text) == path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("$UNSET/x", "$UNSET is not set; set it, or give a default: ${UNSET:-…}"),
        ("$EMPTY/x", "$EMPTY is not set"),
        ("$RELATIVE/x", "$RELATIVE is 'here', expected an absolute path"),
        ("/s/$SCRATCH", "an absolute path, where part of one is expected"),
        ("$UP", "'.' and '..' are not allowed"),
        ("$LINES", "control characters"),
        ("$NUL", "control characters"),
        ("/s/$5", "write $$ for a dollar"),
        ("/s/$", "write $$ for a dollar"),
        ("/s/${USER", "expected ${USER} or ${USER:-default}"),
        ("/s/${USER-x}", "expected ${USER} or ${USER:-default}"),
        ("/s/${}", "write $$ for a dollar"),
        ("/s/${UNSET:-$RELATIVE$UNSET}", "$UNSET is not set"),
        ("${UNSET:-$RELATIVE}", "expected an absolute path"),
    ],
)
def test_refused_path(text, why):
    with pytest.raises(ConfigError) as caught:
        variables().path(text)
    assert str(caught.value).startswith("tieredstore.toml: [[tier]] 'scratch': path is ")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_layout():
    assert variables().layout("$USER/{name}") == "me/{name}"
    assert variables().layout("${UNSET:-all}/{name}") == "all/{name}"
    for text in ("$SCRATCH/{name}", "$BRACES/{name}", "x/$UP/{name}"):
        with pytest.raises(ConfigError, match="relative path without braces"):
            variables().layout(text)


def test_uses():
    assert uses("/s/$SLURM_JOB_ID/x", "SLURM_JOB_ID")
    assert uses("/s/${SLURM_JOB_ID}", "SLURM_JOB_ID")
    assert uses("/s/${SLURM_JOB_ID:-none}", "SLURM_JOB_ID")
    assert uses("/s/${OTHER:-$SLURM_JOB_ID}", "SLURM_JOB_ID")
    assert not uses("/s/$SLURM_JOB_IDS", "SLURM_JOB_ID")
    assert not uses("/s/$$SLURM_JOB_ID", "SLURM_JOB_ID")
