#!/bin/bash
# A run on the ranks of one SGE job; submit it with:  qsub @file@
# The run stops before the job ends, with status 99, at which SGE starts the job again.
# Lines that begin with ##$ are off: edit them and take one # away.
#$ -N @name@
#$ -S /bin/bash
#$ -cwd
#$ -j y
#$ -l h_rt=@walltime@
##$ -l h_vmem=@memory@
##$ -q @queue@
# EDIT: the name of a parallel environment of your cluster, one of `qconf -spl`.
#$ -pe mpi @ranks@

# EDIT: the environment that holds mpiabc and its mpirun, after `module load` and the like.
export PATH="@bin@:$PATH"

export MPIABC_WALLTIME=auto  # for a run that is given no walltime
export MPIABC_RESUMABLE_STATUS=99
exec mpirun -n "$NSLOTS" python -u @script@
