#!/bin/bash
# A run on the ranks of one PBS job, OpenPBS or Torque; submit it with:  qsub pbs-mpi.sh
# The run stops before the job ends, with status 75, and the job submits itself again.
# Lines that begin with ##PBS are off: edit them and take one # away. Torque has nodes= in place of select=.
# Memory of a rank: select=4:ncpus=1:mpiprocs=1:mem=2gb, or nodes=1:ppn=4,pmem=2gb.
#PBS -N fit
#PBS -l select=4:ncpus=1:mpiprocs=1
##PBS -l nodes=1:ppn=4
#PBS -l walltime=02:00:00
#PBS -j oe
##PBS -q long

# EDIT: the environment that holds mpiabc and its mpirun, after `module load` and the like.
export PATH="$HOME/.venv/bin:$PATH"

# EDIT: the name of this file, from the folder where qsub is called: the job submits it again.
self=pbs-mpi.sh

cd "$PBS_O_WORKDIR" || exit 1
if [ ! -f "$self" ]; then
    echo "there is no $self in $PWD: write this script's own name after self=, and submit it again" >&2
    exit 1
fi

export MPIABC_WALLTIME=auto  # for a run that is given no walltime
mpirun -n 4 python -u fit.py
status=$?

if [ "$status" -eq 75 ]; then
    echo "status 75 is meant: this job submits itself again, and goes on from here"
    qsub "$self"
fi
exit "$status"
