#!/bin/bash
# A run on the ranks of one LSF job; submit it with:  bsub < lsf-mpi.sh
# The run stops before the job ends, with status 75, at which LSF queues the job again.
# Lines that begin with ##BSUB are off: edit them and take one # away.
#BSUB -J fit
#BSUB -n 4
#BSUB -W 2:00
#BSUB -o fit-%J.log
#BSUB -Q "75"
##BSUB -M 2G
##BSUB -q long

# EDIT: the environment that holds mpiabc and its mpirun, after `module load` and the like.
export PATH="$HOME/.venv/bin:$PATH"

export MPIABC_WALLTIME=auto  # for a run that is given no walltime
exec mpirun -n "$LSB_DJOB_NUMPROC" python -u fit.py
