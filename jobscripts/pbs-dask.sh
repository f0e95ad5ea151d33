#!/bin/bash
# A run on a Dask cluster that dask-mpi starts in the same PBS job; submit it with:  qsub pbs-dask.sh
# One rank is Dask's scheduler, the others are its workers. The Python file gets the name of the scheduler's
# file as its argument, for abc.run(..., scheduler=sys.argv[1]).
# Lines that begin with ##PBS are off: edit them and take one # away. Torque has nodes= in place of select=.
#PBS -N fit
#PBS -l select=1:ncpus=4:mpiprocs=4
##PBS -l nodes=1:ppn=4
#PBS -l walltime=02:00:00
#PBS -j oe
##PBS -l pmem=2G
##PBS -q long

# EDIT: the environment that holds mpiabc[dask] and its mpirun; `module load` and the like go here too.
export PATH="$HOME/.venv/bin:$PATH"

cd "$PBS_O_WORKDIR" || exit 1
scheduler="$PWD/dask-$PBS_JOBID.json"
# Workers without a nanny: it would start them as children that take themselves for ranks, and hang.
mpirun -n 4 dask-mpi --scheduler-file "$scheduler" --nthreads 1 --memory-limit 0 \
    --worker-class distributed.Worker &
cluster=$!
trap 'kill "$cluster" 2>/dev/null; wait "$cluster"; rm -f "$scheduler"' EXIT

python -u fit.py "$scheduler"
