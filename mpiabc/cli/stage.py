"""`mpiabc jobscript --stage`: the environment on each node's own disk, from one archive.

Thousands of ranks that start at once open hundreds of files each; a parallel file system has one server for
their names. With `--stage` the first node reads them once, and every node one file.
"""

import re

from mpiabc.batch.systems import SYSTEMS
from mpiabc.errors import ProblemError

_RUN = re.compile(r"^(?:exec )?mpirun -n (\S+) python -u (.*)$", re.MULTILINE)
_BEFORE = r"""# The first rank of each node unpacks the environment on that node's own disk, from one archive.
# Ranks of a node where that fails say so, and take the environment from where it is.
environment=$(python -c 'import sys; print(sys.prefix)')
archive=$PWD/.environment-$@job@.tar
stage=${TMPDIR:-/tmp}/mpiabc-$(id -u)-$@job@
tar -C "$environment" -cf "$archive" . || : >"$archive"
trap 'rm -f "$archive"; mpirun -n @ranks@ rm -rf "$stage"' EXIT
# shellcheck disable=SC2016  # the ranks' own shell expands it
staged='
archive=$0 stage=$1
shift
if mkdir "$stage" 2>/dev/null; then
    if tar -C "$stage" -xf "$archive" && "$stage/bin/python" -c "import mpiabc"; then
        : >"$stage/.complete"
    else
        : >"$stage/.failed"
    fi
fi
for _ in $(seq 1200); do
    if [ -e "$stage/.complete" ] || [ -e "$stage/.failed" ] || [ ! -d "$stage" ]; then
        break
    fi
    sleep 0.25
done
if [ -e "$stage/.complete" ]; then
    PATH=$stage/bin:$PATH
elif [ ! -d "$stage" ] || mkdir "$stage/.reported" 2>/dev/null; then
    echo "$(uname -n): there is no copy of the environment in $stage: ranks take it from where it is" >&2
fi
exec "$@"
'

"""


def into(text: str, name: str) -> str:
    """The job script of this name, staged. Raises ProblemError for one whose ranks are not those of a job."""
    system, _, kind = name.partition("-")
    run = _RUN.search(text)
    if kind not in ("mpi", "requeue") or run is None:
        raise ProblemError(
            f"--stage with --kind {kind}: it is for the ranks of one job, --kind mpi; leave --stage out"
        )
    ranks, what = run.groups()
    before = _BEFORE.replace("@job@", SYSTEMS[system].variable).replace("@ranks@", ranks)
    command = f'mpirun -n {ranks} bash -c "$staged" "$archive" "$stage" python -u {what}'
    return f"{text[: run.start()]}{before}{command}{text[run.end() :]}"
