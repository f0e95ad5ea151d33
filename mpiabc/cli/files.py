"""The files that commands are given: a problem's Python file, or YAML that names one."""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import cloudpickle

from mpiabc.cli.settings import SETTINGS
from mpiabc.errors import Error, Interrupted, ProblemError
from mpiabc.problem import Problem

MODULE = "mpiabc_problem_file"  # the name under which a problem's file is loaded


def _yaml_texts(path: Path) -> dict[str, Any]:
    """The keys of a YAML file: settings and `problem`, whose path is made one from here."""
    try:
        import yaml
    except ImportError:
        raise Error(f"{path} is a YAML file, and PyYAML is not installed: install `mpiabc[yaml]`") from None
    try:
        content = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise ProblemError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ProblemError(f"{path} holds no keys: give at least `problem: FILE.py` and `population_size: N`")
    known = ("problem", *SETTINGS, "output")
    unknown = [str(key) for key in content if key not in known]
    if unknown:
        raise ProblemError(f"{path} has the unknown key {', '.join(unknown)}; known are {', '.join(known)}")
    if "output" in content:
        if "store" in content:
            raise ProblemError(f"{path} has both `store` and `output`, which are the same: give one")
        content["store"] = content.pop("output")
    if not content.get("problem"):
        raise ProblemError(f"{path} names no problem: give `problem: FILE.py`, relative to this file")
    return content | {"problem": str(path.parent / str(content["problem"]))}


def is_yaml(path: str | Path) -> bool:
    """Whether a path is that of a YAML file, by its ending."""
    return Path(path).suffix in (".yaml", ".yml")


def split(target: str) -> tuple[Path, str | None]:
    """The path and, after a colon, the problem's name."""
    file, _, name = target.rpartition(":")
    if file and name.isidentifier() and not Path(target).is_file():
        return Path(file), name
    return Path(target), None


def is_of_run(target: str) -> bool:
    """Whether it is for `mpiabc run`, and no script that Python runs by itself: YAML, or FILE:problem."""
    path, name = split(target)
    return is_yaml(path) or name is not None


def texts_of(target: str) -> dict[str, Any]:
    """What FILE[:problem] says: `problem`, and settings if it is a YAML file."""
    path, name = split(target)
    if not is_yaml(path):
        return {"problem": target}
    if name is not None:
        raise ProblemError(f"{target}: the problem's name goes into {path}, as `problem: FILE.py:{name}`")
    return _yaml_texts(path)


def load_problem(target: str) -> Problem | Sequence[Problem]:
    """The Problem of FILE[:problem], or its list of them, which are models of the same data.

    Raises ProblemError if there is none, or no single one.
    """
    path, name = split(target)
    found = _problems(_load_module(path))
    if not found:
        raise ProblemError(f"{path} defines no mpiabc.Problem at its top level")
    if name is not None:
        if name not in found:
            raise ProblemError(f"{path} defines no Problem named {name!r}: it has {', '.join(found)}")
        return found[name]
    if len({id(problem) for problem in found.values()}) > 1:
        raise ProblemError(
            f"{path} defines several problems, {', '.join(found)}: choose one, as in "
            f"{path}:{next(iter(found))}"
        )
    return next(iter(found.values()))


def store_of(target: str) -> str:
    """Where a run goes by default: FILE.db, or FILE-NAME.db if FILE, which is loaded, has several."""
    path, name = split(target)
    loaded = sys.modules.get(MODULE)
    is_one = name is None or loaded is None or len({id(found) for found in _problems(loaded).values()}) == 1
    return f"{path.stem}.db" if is_one else f"{path.stem}-{name}.db"


def _problems(module: ModuleType) -> dict[str, Any]:
    return {key: value for key, value in vars(module).items() if _is_given(value)}


def _is_given(value: Any) -> bool:
    """Whether it is a Problem, or several models."""
    several = value if isinstance(value, list | tuple) and value else [value]
    return all(isinstance(part, Problem) for part in several)


def _load_module(path: Path) -> ModuleType:
    """The executed file, as a module whose functions travel to other processes by value.

    Nothing is cached on disk: many ranks load the same file at once.
    """
    source = _read(path)
    file = str(path.absolute())  # as Python has it of a script: a simulator may change the folder
    module = ModuleType(MODULE)
    module.__file__ = file
    sys.modules[MODULE] = module
    sys.path.insert(0, str(path.parent.absolute()))
    cloudpickle.register_pickle_by_value(module)
    try:
        exec(compile(source, file, "exec"), vars(module))
    except (Error, Interrupted):
        raise
    except (Exception, SystemExit) as error:
        raise ProblemError(f"{path} cannot be loaded:\n{_in_words(error)}") from error
    return module


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProblemError(
            f"cannot read {path} ({error.strerror}): give a Python file that defines an mpiabc.Problem, or "
            "a YAML file"
        ) from None


def users_part(error: BaseException) -> TracebackType | None:
    """The error's traceback in the user's code."""
    inner, ours = error.__traceback__, Path(__file__).parent.parent
    while inner and ours in Path(inner.tb_frame.f_code.co_filename).parents:
        inner = inner.tb_next
    return inner


def _in_words(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, users_part(error))).rstrip()
