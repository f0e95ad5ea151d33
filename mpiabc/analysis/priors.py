"""The prior's marginal densities, as a file tells them: from the text in its settings, nothing is unpickled.

What the text does not tell (priors of one's own, joint distributions, `where`) the first generation may show:
where its threshold is infinite, it is a sample of the prior.
"""

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.population import Population
from mpiabc.priors.marginals import Choice, Integer, Several
from mpiabc.priors.prior import LogNormal, LogUniform, Normal, Prior, Uniform
from mpiabc.store import History

_OURS: dict[str, Callable[..., Any]] = {
    cls.__name__: cls for cls in (Uniform, Normal, LogUniform, LogNormal, Integer, Choice)
}
_OF_LOGARITHMS = (LogUniform, LogNormal)


class Marginal(NamedTuple):
    """The prior of one parameter: its density, or mass, at x (n,), and what it says of the axis."""

    density: Callable[[np.ndarray], np.ndarray]
    support: tuple[float, float] | None = None
    is_discrete: bool = False
    is_log: bool = False
    values: tuple[str, ...] = ()  # of a choice, whose column has indices


def described(history: History, names: Sequence[str], model: str | None = None) -> dict[str, Marginal]:
    """What the settings say of these parameters, of one of several models; the others are left out."""
    text = str(history.settings.get("prior" if model is None else f"prior of {model}", ""))
    parts = _parts(text, names)
    if "where" in parts and "where" not in names:
        return {}
    found = {name: _marginal(parts[name]) for name in names if name in parts}
    return {name: of(marginal) for name, marginal in found.items() if marginal is not None}


def given(prior: Prior) -> dict[str, Marginal]:
    """The marginals of a prior that are of one parameter each; none, if a constraint narrows them."""
    pairs = zip(prior.parts.items(), strict=True)
    if prior.where is not None:
        return {}
    return {name: of(part) for ((name, part),) in pairs if not isinstance(part, Several)}


def of(marginal: Any) -> Marginal:
    """What plots need of a marginal."""
    is_discrete = hasattr(marginal, "logpmf") and not hasattr(getattr(marginal, "dist", None), "pdf")
    log = marginal.logpmf if is_discrete else marginal.logpdf
    support = getattr(marginal, "support", lambda: None)()
    values = tuple(map(str, marginal.values)) if isinstance(marginal, Choice) else ()
    ends = None if support is None else (float(support[0]), float(support[1]))

    @quiet
    def density(x: np.ndarray) -> np.ndarray:
        return np.exp(np.asarray(log(np.asarray(x, float)), float))

    return Marginal(density, ends, is_discrete, isinstance(marginal, _OF_LOGARITHMS), values)


def sampled(history: History) -> Population | None:
    """The first generation, if its threshold let everything through: a sample of the prior."""
    if len(history) and np.all(np.isposinf((first := history[0]).epsilon)):
        return first
    return None


def _parts(text: str, names: Sequence[str]) -> dict[str, str]:
    """The text of each parameter's marginal, and of `where`; of joint ones, nothing."""
    found, at = {}, 0
    for name in (*names, "where"):
        start = max(text.find(f"{before}{name}=", at) for before in ("(", ", "))
        if start >= 0:
            start = text.index("=", start + len(name)) + 1
            at = _end(text, start)
            found[name] = text[start:at]
    return found


def _end(text: str, start: int) -> int:
    """Where an expression ends that begins here: at a comma, or bracket, that is not its own."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in "([{") - (text[i] in ")]}")
        if depth < 0 or (text[i] == "," and not depth):
            return i
    return len(text)


def _marginal(text: str) -> Any:
    """The distribution that is described, if it is one of ours or SciPy's; nothing else is ever called."""
    try:
        call = ast.parse(text, mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            return None
        arguments = [_value(part) for part in call.args]
        keywords = {part.arg: _value(part.value) for part in call.keywords if part.arg}
        if call.func.id in _OURS:
            return _OURS[call.func.id](*arguments, **keywords)
        args, kwds = arguments
        return _of_scipy(call.func.id, args, kwds)
    except (SyntaxError, ValueError, TypeError, ProblemError, RecursionError, MemoryError):
        return None


def _of_scipy(name: str, args: Sequence[Any], kwds: Mapping[str, Any]) -> Any:
    from scipy import stats

    kind = getattr(stats, name, None)
    return kind(*args, **kwds) if isinstance(kind, stats.rv_continuous | stats.rv_discrete) else None


def _value(node: ast.expr) -> Any:
    """A literal, infinity, or one of NumPy's numbers. Raises ValueError for anything else."""
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return math.inf if node.id == "inf" else math.nan
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.Tuple):
        return tuple(map(_value, node.elts))
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _value(key) for key in node.keys]
        return dict(zip(keys, map(_value, node.values), strict=True))
    is_number = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and len(node.args) == 1
    if is_number and isinstance(node.func.value, ast.Name) and node.func.value.id == "np":  # type: ignore[attr-defined]
        return ast.literal_eval(node.args[0])  # type: ignore[attr-defined]
    return ast.literal_eval(node)
