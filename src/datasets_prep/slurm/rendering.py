"""Jobs to scripts: templates, sandboxed, in which every value comes out as a quoted word.

A template has no value's text (see ``given``): where it puts one out, a mark stands for it. When
the whole script is there, the context of each mark says how its value is written: as one word of
bash, as a value of an ``#SBATCH`` line, or not at all. So a template that forgets to quote, or puts
a value between quotes of its own, cannot be broken out of.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from datasets_prep.errors import InvalidJob, reason
from datasets_prep.slurm import directives, quoting
from datasets_prep.slurm.contexts import Context, contexts
from datasets_prep.slurm.given import Directive, Value, given, option_of, text_of
from datasets_prep.slurm.job import Job

if TYPE_CHECKING:
    import jinja2.sandbox

BASE: Final = "base.sh.j2"
_MARK: Final = "\0"
_PLACE: Final = re.compile("\0([0-9]+)\1")  # a mark, and which value it stands for


@dataclass(frozen=True, slots=True)
class Script:
    """What is submitted.

    Attributes
    ----------
    job : Job
        What it is of.
    text : str
        A batch script for bash.
    """

    job: Job
    text: str

    @property
    def file_name(self) -> str:
        """How its file is called: the job's name, as far as it can be a file's."""
        return f"{quoting.file_name(self.job.name)}.sh"

    @property
    def data(self) -> bytes:
        """What its file holds. Names of files may be any bytes."""
        return self.text.encode("utf-8", "surrogateescape")

    @property
    def logs(self) -> str:
        """The folder of its log; SLURM does not make it."""
        return directives.logs(self.job)


def render(job: Job, template: str | os.PathLike[str] | None = None) -> Script:
    """Write a job down as a script.

    Parameters
    ----------
    job : Job
        What to do.
    template : path, optional
        A Jinja2 template of your own, which may extend ``base.sh.j2`` and include what lies in its
        folder.

    Raises
    ------
    InvalidJob
        For a template that does not work or reaches for more than it is given, and for values
        that cannot stand where it puts them.
    """
    import jinja2

    values: list[Any] = []
    called = BASE if template is None else os.fspath(template)
    try:
        page = _environment(values, template).get_template(
            BASE if template is None else os.path.basename(called)
        )
        text = page.render(given(job))
    except jinja2.TemplateNotFound as error:
        raise InvalidJob(f"{called}: no template {error.name} beside it") from None
    except jinja2.TemplateSyntaxError as error:
        raise InvalidJob(f"{error.name or called}, line {error.lineno}: {error.message}") from None
    except (jinja2.TemplateError, OSError, UnicodeError) as error:
        raise InvalidJob(f"{called}: {reason(error)}") from None
    except Exception as error:  # noqa: BLE001 - whatever a template of somebody's runs into
        raise InvalidJob(f"{called}: {type(error).__name__}: {reason(error)}") from None
    return Script(job, _filled(text, values, f"job {job.name!r}: {called}"))


def _environment(
    values: list[Any], template: str | os.PathLike[str] | None
) -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    import jinja2.sandbox

    folder = os.path.dirname(os.path.abspath(template)) if template is not None else None
    loaders: list[jinja2.BaseLoader] = [] if folder is None else [jinja2.FileSystemLoader(folder)]
    loaders.append(jinja2.PackageLoader("datasets_prep.slurm"))
    return jinja2.sandbox.ImmutableSandboxedEnvironment(
        loader=jinja2.ChoiceLoader(loaders),
        undefined=jinja2.StrictUndefined,
        finalize=_marking(values),
        autoescape=False,  # it is no HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _marking(values: list[Any]) -> Callable[[Any], Any]:
    """What Jinja2 calls with everything that a template puts out."""
    from jinja2 import TemplateError, Undefined

    def mark(value: Any) -> Any:
        if isinstance(value, str | Undefined):
            return value  # text of the template itself; or it is said what is not there
        if value is None or isinstance(value, Mapping):
            what = "nothing" if value is None else "a table"
            raise TemplateError(f"a value is {what}, expected a text, a number or a list of them")
        values.append(value)
        return f"{_MARK}{len(values) - 1}\1"

    return mark


def _filled(text: str, values: Sequence[Any], called: str) -> str:
    """The script, with its values where the marks stand."""
    marks = [int(match[1]) for match in _PLACE.finditer(text)]
    found = contexts(_PLACE.sub(_MARK, text), _MARK)
    spoilt = text.count(_MARK) != len(marks) or any(n >= len(values) for n in marks)
    if spoilt or len(found) != len(marks):
        raise InvalidJob(
            f"{called}: a value stands after a backslash or is changed, expected plain words"
        )
    written = iter(
        [_written(values[n], where, called) for n, where in zip(marks, found, strict=True)]
    )
    return _PLACE.sub(lambda _: next(written), text)


def _written(value: Any, where: Context, called: str) -> str:
    try:
        if where is Context.DIRECTIVE:
            return _in_directive(value)
        if where is Context.PLAIN:
            if isinstance(value, list | tuple):
                return " ".join(quoting.word(_text(each)) for each in value)
            return quoting.word(_text(value))
    except ValueError as error:
        raise InvalidJob(f"{called}: {_short(value)} {error}") from None
    raise InvalidJob(
        f"{called}: {_short(value)} stands in {where.value}, expected among plain words; they are "
        f"quoted as they are put out"
    )


def _in_directive(value: Any) -> str:
    if isinstance(value, Directive):
        name, text = option_of(value)
        return f"--{name}" if text is None else f"--{name}={quoting.directive(text)}"
    return quoting.directive(_text(value))


def _text(value: Any) -> str:
    if isinstance(value, Value):
        return text_of(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(f"is a {type(value).__name__}, expected a text or a number")


def _short(value: Any) -> str:
    shown = repr(text_of(value) if isinstance(value, Value) else value)
    return shown if len(shown) < 60 else f"{shown[:57]}…"  # noqa: PLR2004
