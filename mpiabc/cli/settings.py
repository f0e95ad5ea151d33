"""Settings of a run: text from the command line or from a YAML file."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mpiabc.errors import ProblemError
from mpiabc.kernels.gaussian import OLCM, Gaussian, Kernel, LocalGaussian
from mpiabc.schedulers import NAMES, SCHEMES
from mpiabc.sizes import CV, ESS
from mpiabc.thresholds import Constant, Listed, Quantile, Threshold


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = _number(name, text, "a whole number")
    if not number.is_integer():
        raise ProblemError(f"{name}={text!r}: give a whole number")
    return int(number)  # 1e6


def _number(name: str, text: str, expected: str = "a number") -> float:
    try:
        return float(text)
    except ValueError:
        raise ProblemError(f"{name}={text!r}: give {expected}") from None


def _text(name: str, text: str) -> str:
    return text


def _switch(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ProblemError(f"{name}={text!r}: give true or false")
    return text.lower() == "true"


def _threshold(name: str, text: str) -> Threshold:
    kind, _, rest = text.partition(":")
    numbers = [_number(name, part) for part in rest.split(",") if part.strip()]
    if kind == "listed":
        return Listed(numbers)
    if kind == "quantile" and len(numbers) <= 1:
        return Quantile(*numbers)
    if kind == "constant" and len(numbers) == 1:
        return Constant(*numbers)
    raise ProblemError(f"{name}={text!r}: give quantile:0.5, listed:4,2,1 or constant:3")


def _kernel(name: str, text: str) -> Kernel:
    kernels = {"gaussian": Gaussian, "local": LocalGaussian, "olcm": OLCM}
    if text not in kernels:
        raise ProblemError(f"{name}={text!r}: give {' or '.join(kernels)}")
    return kernels[text]()


def _size(name: str, text: str) -> Any:
    """A whole number, several with commas, or a rule with its aim and, where wanted, its bounds."""
    kind, has_aim, rest = text.partition(":")
    if not has_aim:
        sizes = [_whole(name, part) for part in text.split(",")]
        return sizes if len(sizes) > 1 else sizes[0]
    rules = {"ess": ESS, "cv": CV}
    aim, *bounds = rest.split(":")
    if kind not in rules or len(bounds) not in (0, 2):
        raise ProblemError(
            f"{name}={text!r}: give 1000, or 2000,1000,500, ess:500, cv:.05 or cv:.05:100:5000"
        )
    low_high = dict(zip(("low", "high"), (_whole(name, bound) for bound in bounds), strict=False))
    return rules[kind](_number(name, aim), **low_high)


class _Setting(NamedTuple):
    """How a setting's text is read, and how it is shown in the help."""

    read: Callable[[str, str], Any]
    metavar: str  # empty for a switch
    help: str


SETTINGS = {
    "population_size": _Setting(
        _size, "N", "particles in each generation; or 2000,1000,500, the last going on; ess:500; cv:.05"
    ),
    "generations": _Setting(_whole, "G", "stop after so many generations"),
    "epsilon": _Setting(_number, "E", "stop when the threshold is at most this"),
    "simulations": _Setting(_whole, "S", "stop after so many simulations"),
    "acceptance_rate": _Setting(_number, "R", "stop when a generation cannot reach this"),
    "min_epsilon_change": _Setting(_number, "C", "stop when the threshold falls by a smaller share of it"),
    "ess": _Setting(_number, "E", "stop when a generation's effective sample size is smaller"),
    "models": _Setting(_whole, "M", "stop when only so many models have particles left"),
    "walltime": _Setting(
        _text,
        "W",
        "stop, to be continued, after 90s, 30m, 2h, 1:30:00 (h:mm:ss); or auto, in a batch job; else what "
        "MPIABC_WALLTIME says",
    ),
    "threshold": _Setting(_threshold, "RULE", "quantile:0.5 (the default), listed:4,2,1 or constant:3"),
    "kernel": _Setting(_kernel, "KERNEL", "gaussian (the default), local or olcm"),
    "recycle": _Setting(_switch, "", "keep what was accepted before and meets the new threshold"),
    "lookahead": _Setting(_switch, "", "begin simulations of the next generations instead of waiting"),
    "weights": _Setting(_text, "HOW", "of recycled evaluations: balance (the default) or levels"),
    "keep": _Setting(
        _text, "WHAT", "accepted (the default), theta: no statistics, or all: rejected simulations, too"
    ),
    "seed": _Setting(_whole, "SEED", "a non-negative whole number; drawn and kept if not given"),
    "scheduler": _Setting(
        _text,
        "NAME",
        f"auto (the default: MPIABC_SCHEDULER if set, else MPI or processes), {', '.join(NAMES)}, "
        f"{', '.join(f'{scheme}://...' for scheme in SCHEMES)}, the file.json of a broker or of Dask; "
        "several with commas",
    ),
    "team": _Setting(_whole, "K", "ranks that simulate together, for simulators that take comm, over MPI"),
    "renew": _Setting(_whole, "K", "replace a process after K simulations, for simulators that lose memory"),
    "store": _Setting(
        _text,
        "RUN.db",
        "the run's file, by default FILE.db in this folder, or FILE-NAME.db for one of several problems",
    ),
    "overwrite": _Setting(_switch, "", "begin anew if the store holds a run"),
    "accept_changes": _Setting(_switch, "", "go on although code or values of the problem have changed"),
    "progress": _Setting(_switch, "", "a live line; by default on a terminal"),
}
OF_SAMPLER = ("population_size", "kernel", "threshold", "recycle", "weights", "lookahead", "keep", "seed")


def read_settings(texts: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are given, read. Raises ProblemError for what cannot be read."""
    return {
        name: SETTINGS[name].read(name, _as_text(value)) for name, value in texts.items() if value is not None
    }


def _as_text(value: Any) -> str:
    """A value of a YAML file as it would be written on the command line."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
