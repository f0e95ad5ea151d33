#!/bin/bash
# A run that takes as many SLURM jobs as it needs; submit it once, with:  sbatch slurm-requeue.sh
# Two minutes before the end of the job SLURM sends USR1, the run keeps what it has and ends with status 75,
# and the job puts itself into the queue again. `scancel` ends it for good.
# Lines that begin with ##SBATCH are off: edit them and take one # away.
#SBATCH --job-name=fit
#SBATCH --ntasks=4
#SBATCH --time=02:00:00
#SBATCH --output=fit-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
##SBATCH --mem-per-cpu=2G
##SBATCH --partition=long

# EDIT: the environment that holds mpiabc and its mpirun, after `module load` and the like.
export PATH="$HOME/.venv/bin:$PATH"

export MPIABC_WALLTIME=auto  # for a run that is given no walltime
mpirun -n "$SLURM_NTASKS" python -u fit.py &
run=$!
trap 'kill -USR1 "$run"' USR1  # mpirun hands it on to the ranks

wait "$run"  # returns early when the signal comes
while kill -0 "$run" 2>/dev/null; do
    wait "$run"
done
wait "$run"
status=$?

if [ "$status" -eq 75 ]; then
    echo "status 75 is meant: this job goes back into the queue, and goes on from here"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
