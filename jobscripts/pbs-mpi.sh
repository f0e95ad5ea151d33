#!/bin/bash
# A run on the ranks of one PBS job, OpenPBS or Torque; submit it with:  qsub pbs-mpi.sh
# With walltime="auto" in the Python file the run stops in time with status 75, and the job submits itself again.
# Lines that begin with ##PBS are off: edit them and take one # away. Torque has nodes= in place of select=.
#PBS -N fit
#PBS -l select=1:ncpus=4:mpiprocs=4
##PBS -l nodes=1:ppn=4
#PBS -l walltime=02:00:00
#PBS -j oe
##PBS -l pmem=2G
##PBS -q long

# EDIT: the environment that holds mpiabc and its mpirun; `module load` and the like go here too.
export PATH="$HOME/.venv/bin:$PATH"

# EDIT: the name of this file, from the folder where qsub was called.
self=pbs-mpi.sh

cd "$PBS_O_WORKDIR" || exit 1
mpirun -n 4 python -u fit.py
status=$?

if [ "$status" -eq 75 ]; then
    qsub "$self"
fi
exit "$status"
