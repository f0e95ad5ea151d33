"""Disks with faults: a library in front of libc, for processes that are started with it."""

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from shutil import which

from tests.conftest import environment, missing

# NO_LOCKS: every lock of a file is refused, as some network file systems do. DISK_FAULT, "ERRNO r|w FROM FLAG
# PART": reads, or writes, from that byte on fail in files whose path has that part, as long as FLAG exists.
_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_locked_out(int fd) {
    struct stat what;
    return getenv("NO_LOCKS") && !fstat(fd, &what) && S_ISREG(what.st_mode);
}
static int control(const char *name, int fd, int command, void *argument) {
    int (*real)(int, int, void *) = (int (*)(int, int, void *))dlsym(RTLD_NEXT, name);
    int is_lock = command == F_SETLK || command == F_SETLKW || command == F_GETLK || command == F_OFD_SETLK;
    if (is_lock && is_locked_out(fd)) { errno = ENOLCK; return -1; }
    return real(fd, command, argument);
}
int fcntl(int fd, int command, ...) {
    va_list list; va_start(list, command); void *argument = va_arg(list, void *); va_end(list);
    return control("fcntl", fd, command, argument);
}
int fcntl64(int fd, int command, ...) {
    va_list list; va_start(list, command); void *argument = va_arg(list, void *); va_end(list);
    return control("fcntl64", fd, command, argument);
}
int flock(int fd, int operation) {
    if (is_locked_out(fd)) { errno = ENOLCK; return -1; }
    return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(fd, operation);
}

static int fails(int fd, char kind, off_t at) {
    const char *fault = getenv("DISK_FAULT");
    char flag[4096], part[4096], link[64], name[4096], of;
    int number; long from;
    if (!fault || sscanf(fault, "%d %c %ld %4095s %4095s", &number, &of, &from, flag, part) != 5) return 0;
    if (kind != of || at < from || access(flag, F_OK)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, name, sizeof name - 1);
    if (n < 0) return 0;
    name[n] = 0;
    if (!strstr(name, part)) return 0;
    errno = number;
    return 1;
}
ssize_t read(int fd, void *to, size_t n) {
    if (fails(fd, 'r', lseek(fd, 0, SEEK_CUR))) return -1;
    return ((ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read"))(fd, to, n);
}
ssize_t pread64(int fd, void *to, size_t n, off_t at) {
    if (fails(fd, 'r', at)) return -1;
    return ((ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread64"))(fd, to, n, at);
}
ssize_t write(int fd, const void *from, size_t n) {
    if (fails(fd, 'w', lseek(fd, 0, SEEK_CUR))) return -1;
    return ((ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(fd, from, n);
}
ssize_t pwrite64(int fd, const void *from, size_t n, off_t at) {
    if (fails(fd, 'w', at)) return -1;
    return ((ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64"))(fd, from, n, at);
}
"""


@cache
def _library():
    compiler = which("cc") or which("gcc")
    if compiler is None or sys.platform != "linux":
        missing("no C compiler for the library that makes faults")
    folder = tempfile.mkdtemp()
    source, library = (Path(folder) / f"disks.{ending}" for ending in ("c", "so"))
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def without_locks():
    """The environment of a process for which no file system has locks."""
    return environment(LD_PRELOAD=str(_library()), NO_LOCKS="1")


def with_fault(number, calls, flag, part, start=0):
    """The environment of a process whose reads ("r") or writes ("w") fail by `number` while a flag exists."""
    return environment(LD_PRELOAD=str(_library()), DISK_FAULT=f"{number} {calls} {start} {flag} {part}")


def program(text, environment, *arguments):
    """The finished Python program, its output in one text."""
    return subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


#: Says whether locks are refused; a program's beginning, whose first argument is the run's file.
PROBE = """
import fcntl, sys
with open(sys.argv[1] + ".probe", "w") as probe:
    try:
        fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        print("refused", error.errno, flush=True)
"""


def killed_in_commit(sampler):
    """A program that is killed within its third commit, half of it in the file, SQLite's journal beside.

    `sampler`: an expression of `problems` and `damage`.
    """
    return f"""
import os, signal, sys
from contextlib import contextmanager
from mpiabc.store import Store
from tests import damage, problems
real = Store.transaction
@contextmanager
def killed(self):
    with real(self) as db:
        db.execute("PRAGMA cache_size = 1")  # so that pages go to the file before the commit
        yield db
        (committed,) = db.execute("SELECT count(*) FROM population").fetchone()
        if committed == 3:
            assert os.path.exists(sys.argv[1] + "-journal")
            os.kill(os.getpid(), signal.SIGKILL)
Store.transaction = killed
{sampler}.run(sys.argv[1], scheduler="serial", progress=False)
"""
