"""What a user's function raises in a worker, on its way to who has asked for the result."""

import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import cloudpickle

from mpiabc.errors import shortened, text_of


class RemoteTraceback(Exception):  # noqa: N818
    """The traceback of a worker, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(f"\n{text.rstrip()}")


@dataclass(frozen=True)
class Raised:
    """An exception that can travel, and the traceback that cannot, as text."""

    error: BaseException
    text: str

    @classmethod
    def by(cls, error: BaseException) -> "Raised":
        """The exception as it is, or one that says the same, if it cannot be raised elsewhere."""
        text = "".join(map(shortened, traceback.format_exception(error)))
        if not _can_travel(error):
            error = RuntimeError(f"{type(error).__name__}: {text_of(error)}")
        return cls(error.with_traceback(None), text)

    def again(self) -> NoReturn:
        """Raise it here, caused by the worker's traceback."""
        raise self.error from RemoteTraceback(self.text)


def _can_travel(error: BaseException) -> bool:
    """Whether it may be raised elsewhere as it is; `sys.exit()` there would end who leads, with status 0."""
    with suppress(Exception):
        cloudpickle.loads(cloudpickle.dumps(error))
        return isinstance(error, Exception)
    return False
