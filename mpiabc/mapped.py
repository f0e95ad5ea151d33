"""Arrays in files that are mapped to be read: they travel as where they are, and are mapped again.

`numpy.load("data.npy", mmap_mode="r")` gives all processes of a node one copy between them. A pickle of
such an array would be a copy for each: here it is the file's path, size and time, and the place in it.
"""

import io
import os
import platform
from collections.abc import Callable
from mmap import mmap
from pickle import PickleBuffer
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

import cloudpickle
import numpy as np

from mpiabc.errors import ProblemError

_LARGE = 1 << 20  # bytes of a file from where on to share it is worth that all hosts must see it


class File(NamedTuple):
    """A file as it was when it was mapped: one of another size or time is another file."""

    path: str
    size: int  # in bytes
    modified: int  # in nanoseconds

    def __str__(self) -> str:
        return f"{self.size} bytes of {np.datetime64(self.modified, 'ns')} UTC"


class Place(NamedTuple):
    """Where the items of an array lie; `offset` is that of its first item in the file, in bytes."""

    file: File
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype
    is_memmap: bool  # else a plain array


def placed(value: Any) -> Place | None:
    """Where an array lies that is mapped from a file to be read, as a whole or as any view of it.

    None for everything else, to which belong maps that can be written ("r+", "w+", "c"), small files, files
    that have gone from their path, and subclasses of arrays.
    """
    if type(value) not in (np.ndarray, np.memmap) or value.flags.writeable:
        return None
    whole = None if value.dtype.hasobject or not value.size else _mapped_whole(value)
    file = None if whole is None or whole.mode != "r" else _file_of(whole)
    if whole is None or file is None:
        return None
    offset = whole.offset + _address(value) - _address(whole)
    return Place(file, offset, value.shape, value.strides, value.dtype, type(value) is np.memmap)


def _mapped_whole(array: Any) -> np.memmap | None:
    """The array that has mapped a file, below all views of it."""
    while not (isinstance(array, np.memmap) and isinstance(_mapping(array), mmap)):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
        if array is None:
            return None
    return array


def _mapping(whole: np.memmap) -> Any:
    return whole.base


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


_files: WeakKeyDictionary[mmap, File | None] = WeakKeyDictionary()  # as first seen, by what maps them


def _file_of(whole: np.memmap) -> File | None:
    """The file as it was at the first look, which a Problem takes when it is made."""
    mapping = _mapping(whole)
    if mapping not in _files:
        _files[mapping] = _looked_at(whole.filename, mapping)
    return _files[mapping]


def _looked_at(path: Any, mapping: mmap) -> File | None:
    """The file at the path; None if it is small, or surely not the one that is mapped."""
    try:
        status, size = os.stat(path), mapping.size()
    except (OSError, TypeError, ValueError):
        return None
    is_it = status.st_size == size >= _LARGE
    return File(os.fspath(path), size, status.st_mtime_ns) if is_it else None


# Travelling.


class Pickler(cloudpickle.Pickler):
    """cloudpickle's, in whose pickles arrays of mapped files are where they lie."""

    def reducer_override(self, obj: Any) -> Any:
        """How an object is pickled, as `pickle.Pickler` asks."""
        place = placed(obj)
        return super().reducer_override(obj) if place is None else (opened, (place,))


def dumps(
    value: Any,
    protocol: int | None = None,
    buffer_callback: Callable[[PickleBuffer], Any] | None = None,
) -> bytes:
    """A value as bytes, for another process that sees the same files."""
    file = io.BytesIO()
    Pickler(file, protocol, buffer_callback).dump(value)
    return file.getvalue()


# Arriving.


_wholes: WeakValueDictionary[File, np.memmap] = WeakValueDictionary()  # the open maps of this process


def opened(place: Place) -> np.ndarray:
    """The array of this place, on a map that all arrays of its file share in this process.

    Raises ProblemError if the file is not there, or is another one.
    """
    whole = _wholes.get(place.file)
    if whole is None:
        whole = _wholes[place.file] = _opened_whole(place.file)
    kind = np.memmap if place.is_memmap else np.ndarray
    array = np.ndarray.__new__(kind, place.shape, place.dtype, whole, place.offset, place.strides)
    if isinstance(array, np.memmap):
        array.__array_finalize__(whole)  # gives it its file's name and mode
        array.offset = place.offset
    return array


def _opened_whole(file: File) -> np.memmap:
    try:
        with open(file.path, "rb") as stream:
            status = os.fstat(stream.fileno())
            found = File(file.path, status.st_size, status.st_mtime_ns)
            if found == file:
                whole = np.memmap(stream, np.uint8, "r")
                _files[_mapping(whole)] = file
                return whole
            text = str(found)
    except OSError as error:
        text = f"nothing that can be read ({error.strerror})"
    raise ProblemError(
        f"{platform.node()} finds at {file.path} {text}, expected the file of {file} that was mapped to be "
        "read: let all hosts see one file there, or copies that keep its time (cp -p), or load it without "
        "mmap_mode, so that its numbers are sent"
    )
