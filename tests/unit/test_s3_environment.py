"""Keys that the environment holds are used without botocore, and mean what they mean to it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tieredstore.backends.s3.access import Access, preset_of
from tieredstore.backends.s3.environment import keys, names_no_proxy
from tieredstore.errors import TierUnavailable

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden"}
WHOLE = {**KEYS, "AWS_DEFAULT_REGION": "eu-north-1"}
NO_FILES = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


def access(variables, profile=None):
    found = Access("bucket", "http://127.0.0.1:9", None, profile, preset_of(None, None))
    found.environment = variables
    return found


@pytest.mark.parametrize("more", [{}, {"AWS_SESSION_TOKEN": "token"}, {"AWS_SESSION_TOKEN": ""}])
def test_they_are_what_botocore_finds(monkeypatch, more):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**NO_FILES, **WHOLE, **more}.items():
        monkeypatch.setenv(name, value)
    ours, theirs = access(os.environ), access({})
    assert ours.credentials.access_key == theirs.credentials.access_key == "key"
    assert ours.credentials.secret_key == theirs.credentials.secret_key == "hidden"
    assert ours.credentials.token == theirs.credentials.token
    assert ours.region == theirs.region == "eu-north-1"
    assert ours.provide() == theirs.provide()
    assert "hidden" not in repr(ours.credentials)


@pytest.mark.parametrize(
    "more",
    [
        {"AWS_PROFILE": "p"},
        {"AWS_DEFAULT_PROFILE": "p"},
        {"AWS_CREDENTIAL_EXPIRATION": "2026-01-31T00:00:00Z"},
        {"AWS_SECURITY_TOKEN": "t"},
        {"AWS_DEFAULT_REGION": ""},
        {"AWS_ACCESS_KEY_ID": ""},
        {"AWS_SECRET_ACCESS_KEY": ""},
    ],
)
def test_what_may_mean_another_step_of_the_chain_is_left_to_botocore(more):
    assert keys(WHOLE) is not None
    assert keys({**WHOLE, **more}) is None
    assert keys(KEYS) is None


def test_a_profile_of_the_configuration_counts_before_the_environment(monkeypatch):
    for name, value in {**NO_FILES, **WHOLE}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TierUnavailable, match="profile"):
        _ = access(WHOLE, "none-of-that-name").credentials


def test_a_proxy_is_noticed():
    assert names_no_proxy(WHOLE)
    assert not names_no_proxy({**WHOLE, "http_proxy": "http://proxy:1"})
    assert not names_no_proxy({**WHOLE, "ALL_PROXY": "http://proxy:1"})
    assert not names_no_proxy({})


def test_a_store_that_finds_its_keys_in_the_environment_loads_no_botocore(moto, tmp_path):
    bucket = moto.make_bucket("without-botocore")
    code = f"""
import sys, tieredstore
first = {{"name": "a", "backend": "local", "path": {str(tmp_path / "a")!r}}}
low = {{"name": "b", "backend": "s3", "url": {bucket!r}, "endpoint_url": {moto.url!r}}}
store = tieredstore.open_store({{"tier": [first, {{**low, "durable": True}}]}})
with store.create("x", recipe={{"of": "x"}}) as stage:
    (stage.path / "f").write_text("x")
store.promote("x")
there = {{"name": "a", "backend": "local", "path": {str(tmp_path / "c")!r}}}
got = tieredstore.open_store({{"tier": [there, low]}}).restore("x")
assert (got.path / "f").read_text() == "x"
print(sorted({{"botocore", "obstore", "s3fs"}} & set(sys.modules)))
"""
    options = moto.options
    names = {"AWS_ACCESS_KEY_ID": options["key"], "AWS_SECRET_ACCESS_KEY": options["secret"]}
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment = {k: v for k, v in kept.items() if not k.startswith("AWS_")}
    environment |= {**NO_FILES, **names, "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
