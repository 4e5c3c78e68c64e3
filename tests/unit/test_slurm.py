"""Job scripts without a cluster: quoting, templates, configurations, the files that are written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_prep import slurm
from datasets_prep.errors import InvalidJob, NoSlurm, SlurmFailed
from datasets_prep.slurm import Job, Promote, Queue, Restore, Staging, quoting
from datasets_prep.slurm.contexts import Context, contexts
from datasets_prep.slurm.quoting import Fillable

SAY = "import json, sys; json.dump(sys.argv[1:], sys.stdout)"
ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def bash(text: str, **env: str) -> str:
    done = subprocess.run(
        ["bash", "-c", text], env=env, capture_output=True, timeout=20, check=True, text=False
    )
    return done.stdout.decode("utf-8", "surrogateescape")


def said(words: str, **env: str) -> list[str]:
    """What a program is given where these words of bash stand."""
    return json.loads(bash(f"{sys.executable} -c {quoting.word(SAY)} {words}", **env))


# -- quoting ------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.lists(ANY, min_size=1, max_size=20))
def test_words_arrive_as_they_are(texts: list[str]) -> None:
    assert said(" ".join(map(quoting.word, texts))) == texts


@settings(max_examples=15, deadline=None)
@given(st.lists(ANY, min_size=1, max_size=20))
def test_so_do_those_with_placeholders_beside_them(texts: list[str]) -> None:
    masked = [text.replace("{", "(").replace("}", ")") for text in texts]
    words = [quoting.word(Fillable(f"{text}{{task}}{text}{{{{job}}}}")) for text in masked]
    got = said(" ".join(words), SLURM_ARRAY_TASK_ID="7 *")
    assert got == [f"{text}7 *{text}{{job}}" for text in masked]


def test_placeholders_stand_for_what_the_job_has() -> None:
    env = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3", "JOB_SCRATCH": "/s p"}
    assert said(quoting.word(Fillable("{job}-{task}/{scratch}")), **env) == ["9-3//s p"]
    assert said(quoting.word(Fillable("{job}")), SLURM_ARRAY_JOB_ID="8", **env) == ["8"]
    assert said(quoting.word("{job}"), **env) == ["{job}"]


def test_names_of_any_bytes_are_kept_and_halves_of_characters_are_not() -> None:
    odd = b"\xff name".decode("utf-8", "surrogateescape")
    script = slurm.render(Job("odd", ("cat", odd)))
    assert b"'\xff name'" in script.data
    for text in ("\ud800", "a\0b"):
        with pytest.raises(InvalidJob, match=r"command|odd"):
            slurm.render(Job("odd", ("cat", text)))


@given(ANY)
def test_a_directive_is_one_line_that_sbatch_reads_back(text: str) -> None:
    try:
        value = quoting.directive(text)
    except ValueError:
        assert any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
        return
    assert "\n" not in value
    assert value[1:-1].replace('\\"', "").count('"') == 0
    read, escaped = "", False
    for char in value[1:-1]:
        if escaped or char != "\\":
            read += char
        escaped = char == "\\" and not escaped
    assert read == text


@given(ANY, ANY)
def test_names_of_files_are_plain_and_differ_where_names_do(one: str, other: str) -> None:
    files = [quoting.file_name(name) for name in (one, other)]
    assert all(f.isascii() and not set(f) & set("/ \n\"'$") and f[0] not in "-." for f in files)
    assert (files[0] == files[1]) == (one == other)


# -- where a value stands -----------------------------------------------------------------------

PLACES = [
    ("echo M", "PLAIN"),
    ("x=(M) $(echo M)", "PLAIN PLAIN"),
    ("echo 'M' \"M\" M", "QUOTED QUOTED PLAIN"),
    ("a \"b\\\"M\" $'c\\'M' `M` ${x:-M} M", "QUOTED QUOTED QUOTED QUOTED PLAIN"),
    ('"$(echo "M")" M', "QUOTED PLAIN"),
    ("# it's M\nM", "COMMENT PLAIN"),
    ("#SBATCH --x=M\n #SBATCH M\nx='#' M", "DIRECTIVE COMMENT PLAIN"),
    ("${#x} $# a#M", "PLAIN"),
    ("cat <<A <<-'B'\nM\nA\nM\n\tB\nM", "HEREDOC HEREDOC PLAIN"),
    ("cat <<< M\nM", "PLAIN PLAIN"),
    ("$M a$(M)", "QUOTED PLAIN"),
    ('echo $((M)) $((1 + (M))) "$((M))" M', "QUOTED QUOTED QUOTED PLAIN"),
    ('if ((M > 1)); then ( (M) ); fi; "((" M', "QUOTED PLAIN PLAIN"),
    ("case x in a) echo M;; esac\nM", "PLAIN PLAIN"),
]


@pytest.mark.parametrize(("text", "expected"), PLACES, ids=[text for text, _ in PLACES])
def test_the_context_of_a_place(text: str, expected: str) -> None:
    found = contexts(text.replace("M", "\0"), "\0")
    assert found == [Context[name] for name in expected.split()]


def template(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own.sh.j2"
    path.write_text(text)
    return path


MACRO = "{% set x %}{{ values.v }}{% endset %}{% macro m() %}echo {{ caller() }}{% endmacro %}"
EVIL = "$(touch owned); `touch owned`\n' \" touch owned #"


@pytest.mark.parametrize(
    "text",
    [
        'echo "{{ values.v }}"',
        "echo '{{ values.v }}'",
        "cat <<E\n{{ values.v }}\nE",
        "echo `{{ values.v }}`",
        'echo "$(echo {{ values.v }})"',
        "# {{ values.v }}",
        "#SBATCH --comment={{ values.v }}",
        "echo \\{{ values.v }}",
        "echo ${{ values.v }}",
        "echo $(( {{ values.v }} ))",
        "(( {{ values.v }} ))",
        "cat <<{{ values.v }}",
        "x=${y:-{{ values.v }}}",
    ],
)
def test_a_value_that_could_break_out_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidJob) as error:
        slurm.render(Job("j", ("true",), values={"v": EVIL}), template(tmp_path, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "echo {{ values.v }}",
        "x={{ values.v }}; echo $x",
        "{% macro say(x) %}echo {{ x }}{% endmacro %}{{ say(values.v) }}",
        "{% set all %}echo {{ values.v }}{% endset %}{{ all }}",
        "{% for v in [values.v, values.v] %}echo {{ v }} a'b'{{ v }}\n{% endfor %}",
        "echo {{ [values.v, 1, true] }} {{ {'a': values.v}['a'] }} {{ 'lit' ~ 1 }}",
        MACRO + "{% call m() %}{{ x ~ ' ' ~ x|upper }} {{ '%s'|format(x) }}{% endcall %}",
        "echo {{ values.v if values.v and values.v != 'x' and values.v in [values.v] else 1 }}",
        "(cd . && echo $(echo {{ values.v }}))",
    ],
)
def test_elsewhere_it_is_quoted(tmp_path: Path, text: str) -> None:
    script = slurm.render(Job("j", ("true",), values={"v": EVIL}), template(tmp_path, text))
    work = tmp_path / "work"
    work.mkdir()
    bash(f"cd {work}; {script.text}", PATH="/usr/bin:/bin")
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|attribute"),
        ("{{ job.__init__.__globals__ }}", "unsafe|attribute"),
        ("{{ directives.append(1) }}", "unsafe|not safely"),
        ("{{ job.update({'name': 'x'}) }}", "unsafe|not safely"),
        ("{% include '../../../../etc/passwd' %}", "passwd"),
        ("{% include '/etc/passwd' %}", "passwd"),
        ("{% import 'os' as os %}", "os"),
        ("{{ lipsum.__globals__['os'].system('touch owned') }}", "unsafe|attribute"),
        ("{{ values.missing }}", "missing"),
        ("{{ values.v ~ 'x' }}", "joined"),
        ("{{ values.v|upper }}", "changed"),
        ("{{ values.v|e }}", "changed"),
        ("{{ values.v|safe }}", "changed"),
        ("{{ [values.v]|join }}", "changed"),
        ("{{ '%s'|format(values.v) }}", "changed"),
        ("{{ values.v|tojson }}", "JSON"),
        ("{{ values.v|list }}", "iterable"),
        ("{{ values.v|attr('_text') }}", "_text|unsafe"),
        ("{{ [values.v]|map(attribute='_text')|first }}", "_text|unsafe"),
        ("{{ directives[0]|string }}", "changed"),
        ("{% set x %}{{ values.v }}{% endset %}{{ x|replace('0', '7') }}", "changed"),
        ("{% set x %}{{ values.v }}{% endset %}{{ x|reverse }}", "changed"),
        ("{{ values.v|pprint }}{{ nothing }}", "nothing"),
        ("{{ nothing }}", "nothing"),
        ("{{ values.n }}", "nothing"),
        ("{{ values }}", "table"),
        ("{{ values.v.a }}", "no attribute"),
        ("{% if %}", "line 1"),
        ("{% for i in range(99999999) %}{% endfor %}", "range|big"),
        ("{{ 1 // 0 }}", "ZeroDivision"),
    ],
)
def test_a_template_that_reaches_further_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidJob, match=rf"own\.sh\.j2.*({said})") as error:
        slurm.render(Job("j", ("true",), values={"v": "x", "n": None}), template(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_template_of_ones_own_extends_the_base_and_fills_directives(tmp_path: Path) -> None:
    (tmp_path / "part.j2").write_text("echo included\n")
    own = template(
        tmp_path,
        "{% extends 'base.sh.j2' %}\n"
        "{% block directives %}{{ super() }}#SBATCH --comment={{ values.say }}\n{% endblock %}\n"
        "{% block run %}{% include 'part.j2' %}"
        "job_run {{ job.command }} {{ values.say }}{% endblock %}",
    )
    job = Job("j", ("echo", "a b"), values={"say": 'it\'s "x" \\'})
    text = slurm.render(job, own).text
    assert "<a value>" not in text
    assert text.startswith("#!/bin/bash\n#SBATCH --job-name=")
    assert '#SBATCH --comment="it\'s \\"x\\" \\\\"\n' in text
    assert "echo included\n" in text
    assert "job_run echo 'a b' 'it'" in text


def test_keys_of_tables_are_plain_words(tmp_path: Path) -> None:
    for values in ({EVIL: 1}, {"a": [{EVIL: 1}]}):
        with pytest.raises(InvalidJob, match=r"values.*key"):
            slurm.render(Job("j", ("true",), values=values))
    text = "{% for k, v in values|dictsort %}{{ k }}={{ v }}\n{% endfor %}"
    script = slurm.render(Job("j", ("true",), values={"a": "b c"}), template(tmp_path, text))
    assert script.text == "a='b c'\n"


# -- jobs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"name": "a\nb"}, "name"),
        ({"name": " "}, "name"),
        ({"command": ()}, "command"),
        ({"account": "a\n#SBATCH --wrap=x"}, "account"),
        ({"partition": "p\r"}, "partition"),
        ({"folder": "/a\nb"}, "folder"),
        ({"logs": "a\\b"}, "logs"),
        ({"time": "1h"}, "time"),
        ({"memory": "3 GB"}, "memory"),
        ({"gpus": "two"}, "gpus"),
        ({"nodes": "-1"}, "nodes"),
        ({"array": "0-"}, "array"),
        ({"array": "0-9\n"}, "array"),
        ({"cpus": -1}, "cpus"),
        ({"modules": ("-x",)}, "modules"),
        ({"conda": "-n"}, "conda"),
        ({"environment": {"A B": "x"}}, "environment"),
        ({"environment": {"x;touch owned": "x"}}, "environment"),
        ({"environment": {"JOB_SCRATCH": "/"}}, "environment"),
        ({"environment": {"job_code": "0"}}, "environment"),
        ({"sbatch": {"mem": "3"}}, "memory"),
        ({"sbatch": {"comment\n": "3"}}, "sbatch"),
        ({"sbatch": {"comment": "a\nb"}}, "sbatch.comment"),
        ({"after": ("j",)}, "after"),
        ({"after": ("afterok:",)}, "after"),
        ({"on_warning": "requeue"}, "on_warning"),
        ({"on_warning": "hope"}, "on_warning"),
        ({"cache": "mine"}, "cache is 'mine', expected per-job or shared or none"),
        ({"cache": "shared"}, "cache_from is '', expected the folder of the shared cache"),
        ({"cache": "none", "cache_from": "/d"}, "cache_from"),
        ({"command": ("x", "{task}")}, "array"),
        ({"environment": {"X": "{scratch}"}}, "scratch"),
        ({"staging": Staging(restore=(Restore("a", ("b,c",)),))}, "staging"),
        ({"staging": Staging(promote=(Promote("a", "b", "never"),))}, "staging"),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_key(fields: dict, key: str) -> None:
    with pytest.raises(InvalidJob, match=key.replace(".", r"\.")) as error:
        Job(**{"name": "j", "command": ("true",), **fields})
    assert "\n" not in str(error.value)


def test_every_job_is_a_script_of_bash() -> None:
    for job in (Job("a", ("true",)), Job("b", "echo 'x'\nfor i in 1; do echo $i; done\n")):
        slurm.check(slurm.render(job), Queue(env={"PATH": ""}))
    broken = slurm.Script(Job("c", ("true",)), "if true; then\n")
    with pytest.raises(InvalidJob, match=r"'c'.*none of bash's"):
        slurm.check(broken, Queue(env={"PATH": ""}))


def test_jobs_come_after_those_that_they_wait_for() -> None:
    waits = {"c": ("b", "7"), "b": ("afterany:a",), "a": ()}
    scripts = [slurm.render(Job(name, ("true",), after=on)) for name, on in waits.items()]
    assert [script.job.name for script in slurm.ordered(scripts)] == ["a", "b", "c"]
    for bad, why in [({"a": ("b",), "b": ("a",)}, "each other"), ({"a": ("z",)}, "'z'")]:
        scripts = [slurm.render(Job(name, ("true",), after=on)) for name, on in bad.items()]
        with pytest.raises(InvalidJob, match=why):
            slurm.ordered(scripts)
    with pytest.raises(InvalidJob, match="twice"):
        slurm.ordered([scripts[0], scripts[0]])


def test_where_there_is_no_slurm_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoSlurm, match="sbatch"):
        slurm.submit([Job("a", ("true",), folder=str(tmp_path))], Queue(env={"PATH": ""}))


def test_a_command_that_hangs_has_a_time_limit(tmp_path: Path) -> None:
    slow = tmp_path / "squeue"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    with pytest.raises(SlurmFailed, match=r"squeue: no answer within 0\.2 s"):
        Queue(0.2, {"PATH": f"{tmp_path}:/usr/bin:/bin"}).tasks(["1"])
