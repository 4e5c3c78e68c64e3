"""What the crash sweeps do, and what may be seen of it; the words are those of ``Scenario``."""

from __future__ import annotations

from crash_harness import WHOLE_FILES, Scenario  # loaded under this name by conftest.py

NONE = ("absent",)


def scenarios():
    """Every scenario by its name."""
    return {
        s.name: s
        for s in (
            Scenario("create", "nothing", "create_new", ("absent", "new"), NONE),
            Scenario(
                "create-and-promote",
                "nothing",
                "create_and_promote",
                ("absent", "new"),
                ("absent", "new"),
                inner="new/root",
            ),
            Scenario("replace", "create_old", "create_new", ("old", "new"), NONE),
            Scenario(
                "replace-no-exchange",
                "create_old",
                "create_new",
                ("old", "new"),
                NONE,
                no_exchange=True,
            ),
            Scenario(
                "replace-in-place",
                "create_old_beside_foreign",
                "create_new",
                ("old", "new"),
                NONE,
                hides=True,
            ),
            Scenario(
                "replace-single-file",
                "create_file_old",
                "create_file_new",
                ("old", "new"),
                NONE,
                hides=True,
                single=True,
            ),
            Scenario("promote", "create_new", "promote", ("new",), ("absent", "new"), to="below"),
            Scenario(
                "promote-replace",
                "old_below_new_here",
                "promote",
                ("new",),
                ("old", "new"),
                to="below",
            ),
            Scenario("restore", "new_below", "restore", ("absent", "new"), ("new",), to="local"),
            Scenario(
                "restore-some",
                "new_below_some_here",
                "restore_some",
                ("new",),
                ("new",),
                partial=True,
                to="local",
            ),
            Scenario("fill", "nothing", "fill", ("absent", "new"), ("absent", "new"), fills=True),
            Scenario("evict", "new_everywhere", "evict", ("new", "absent"), ("new",)),
            Scenario(
                "evict-in-place",
                "new_everywhere_beside_foreign",
                "evict",
                ("new", "absent"),
                ("new",),
                hides=True,
            ),
            Scenario(
                "s3-promote", "create_new", "promote", ("new",), ("absent", "new"), s3=True, to="s3"
            ),
            Scenario(
                "s3-promote-replace",
                "old_below_new_here",
                "promote",
                ("new",),
                ("old", "new"),
                s3=True,
                to="s3",
            ),
            Scenario(
                "s3-restore",
                "new_below",
                "restore",
                ("absent", "new"),
                ("new",),
                s3=True,
                to="local",
                unit=WHOLE_FILES,
                stride=5,
            ),
            Scenario(
                "s3-evict-lower",
                "new_everywhere",
                "evict_lower",
                ("new",),
                ("new", "absent"),
                s3=True,
            ),
        )
    }
