#!/bin/bash
# A run on a Dask cluster that dask-mpi starts in the same SLURM job; submit it with:  sbatch slurm-dask.sh
# One rank is Dask's scheduler, the others are its workers; scheduler="auto", which a run has if it is given no
# scheduler, uses them. The run stops before the job ends, with status 75, and the same sbatch continues it.
# Lines that begin with ##SBATCH are off: edit them and take one # away.
#SBATCH --job-name=fit
#SBATCH --ntasks=4
#SBATCH --time=02:00:00
#SBATCH --output=fit-%j.log
##SBATCH --mem-per-cpu=2G
##SBATCH --partition=long

# EDIT: the environment that holds mpiabc[dask] and its mpirun, after `module load` and the like.
export PATH="$HOME/.venv/bin:$PATH"

scheduler="$PWD/dask-$SLURM_JOB_ID.json"
# Workers without a nanny: it would start them as children that take themselves for ranks, and hang.
mpirun -n "$SLURM_NTASKS" dask-mpi --scheduler-file "$scheduler" --nthreads 1 --memory-limit 0 \
    --worker-class distributed.Worker &
cluster=$!
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -f "$scheduler"' EXIT

export MPIABC_SCHEDULER="$scheduler" MPIABC_WALLTIME=auto  # for a run that is given neither
python -u fit.py &
run=$!
while kill -0 "$run" 2>/dev/null; do  # a run without a scheduler would wait for one for minutes
    if ! kill -0 "$cluster" 2>/dev/null; then
        echo "dask-mpi has ended, and this job with it: what it said is above" >&2
        exit 1
    fi
    sleep 1
done
wait "$run"
