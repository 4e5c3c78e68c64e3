"""Artifacts come to the nodes before a job's command, and results go from them after it."""

from dataclasses import replace

from datasets_prep.slurm import Job, Promote, Restore, Staging


def test_artifacts_come_to_the_node_and_results_go_from_it(bed) -> None:
    with bed.far.create("in put/it's $(x)") as stage:
        (stage.path / "a b").write_text("input")
        (stage.path / "other").write_text("not asked for")
    command = 'cp "$JOB_SCRATCH/data/in put/it\'s $(x)"/* "$JOB_SCRATCH/out"'.replace("$(", "\\$(")
    job = Job(
        "stage",
        f'mkdir "$JOB_SCRATCH/out"; {command}',
        array="4-5",
        folder=str(bed.path),
        scratch=str(bed.path / "local disk"),
        staging=Staging(
            str(bed.config),
            (Restore("in put/it's $(x)", ("a b",)),),
            (Promote("runs/{task} $(x)", "{scratch}/out"),),
        ),
    )
    assert bed.cluster.wait(bed.submit(job)) == "COMPLETED", bed.log(job)
    for task in (4, 5):
        got = bed.far.restore(f"runs/{task} $(x)")
        assert [p.name for p in got.path.iterdir() if not p.name.startswith(".")] == ["a b"]
        assert (got.path / "a b").read_text() == "input"
    assert list((bed.path / "local disk").glob("**/*")) == [bed.path / "local disk" / ".cache"]


def test_every_node_of_a_job_gets_what_it_needs(bed) -> None:
    with bed.far.create("input") as stage:
        (stage.path / "a").write_text("input")
    config = bed.path / "nodes.toml"
    config.write_text(
        '[[tier]]\nname = "node"\nbackend = "local"\n'
        f'path = "{bed.path}/${{SLURMD_NODENAME}}"\nlayout = "{{name}}"\n'
        f'[[tier]]\nname = "far"\nbackend = "local"\npath = "{bed.path}/durable"\ndurable = true\n'
    )
    needed = Staging(str(config), (Restore("input"),))
    local = bed.path / "local"
    job = Job(
        "wide", ("true",), nodes="2", folder=str(bed.path), scratch=str(local), staging=needed
    )
    assert bed.cluster.wait(bed.submit(job)) == "COMPLETED", bed.log(job)
    assert len(list(bed.path.glob("n?/input/a"))) == 2
    assert bed.left == []


def test_what_a_command_that_fails_leaves_is_promoted_where_it_is_to_be(bed) -> None:
    wanted = (Promote("run", "out"), Promote("good", "out", "success"), Promote("no", "nowhere"))
    job = Job(
        "fails",
        "mkdir out; echo half > out/part; exit 7",
        folder=str(bed.path),
        scratch=str(bed.path / "local"),
        staging=Staging(str(bed.config), (), wanted),
    )
    task = bed.ended(job)
    assert (task.state, task.status, task.ended, task.succeeded) == ("FAILED", 7, True, False)
    assert set(bed.far.status()) == {"run"}
    assert bed.left == []


def test_a_result_that_is_missing_or_an_artifact_that_cannot_be_had_fails_the_job(bed) -> None:
    keep = Job(
        "keep",
        ("touch", "ran-keep"),
        folder=str(bed.path),
        scratch=str(bed.path / "local"),
        staging=Staging(str(bed.config), (), (Promote("run", "nowhere"),)),
    )
    need = replace(
        keep,
        name="need",
        command=("touch", "ran-need"),
        staging=Staging(str(bed.config), (Restore("nothing"),)),
    )
    assert [bed.ended(job).state for job in (keep, need)] == ["FAILED", "FAILED"]
    assert (bed.path / "ran-keep").exists()
    assert not (bed.path / "ran-need").exists()
    assert "nothing" in bed.log(need)
    assert "Traceback" not in bed.log(need)
