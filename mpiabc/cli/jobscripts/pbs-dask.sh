#!/bin/bash
# A run on a Dask cluster that dask-mpi starts in the same PBS job; submit it with:  qsub @file@
# One rank is Dask's scheduler, the others are its workers; scheduler="auto", which a run has if it is given no
# scheduler, uses them. The run stops before the job ends, with status 75, and the job submits itself again.
# Lines that begin with ##PBS are off: edit them and take one # away. Torque has nodes= in place of select=.
# Memory of a rank: select=@ranks@:ncpus=1:mpiprocs=1:mem=2gb, or nodes=1:ppn=@ranks@,pmem=2gb.
#PBS -N @name@
#PBS -l select=@select@
##PBS -l nodes=@torque@
#PBS -l walltime=@walltime@
#PBS -j oe
##PBS -q @queue@

# EDIT: the environment that holds mpiabc[dask] and its mpirun, after `module load` and the like.
export PATH="@bin@:$PATH"

# EDIT: the name of this file, from the folder where qsub is called: the job submits it again.
self=@file@

cd "$PBS_O_WORKDIR" || exit 1
if [ ! -f "$self" ]; then
    echo "there is no $self in $PWD: write this script's own name after self=, and submit it again" >&2
    exit 1
fi

scheduler="$PWD/dask-$PBS_JOBID.json"
# Workers without a nanny: it would start them as children that take themselves for ranks, and hang.
mpirun -n @ranks@ dask-mpi --scheduler-file "$scheduler" --nthreads 1 --memory-limit 0 \
    --worker-class distributed.Worker &
cluster=$!
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -f "$scheduler"' EXIT

export MPIABC_SCHEDULER="$scheduler" MPIABC_WALLTIME=auto  # for a run that is given neither
python -u @script@ &
run=$!
while kill -0 "$run" 2>/dev/null; do  # a run without a scheduler would wait for one for minutes
    if ! kill -0 "$cluster" 2>/dev/null; then
        echo "dask-mpi has ended, and this job with it: what it said is above" >&2
        exit 1
    fi
    sleep 1
done
wait "$run"
status=$?

if [ "$status" -eq 75 ]; then
    echo "status 75 is meant: this job submits itself again, and goes on from here"
    qsub "$self"
fi
exit "$status"
