#!/bin/bash
# A run on the ranks of one SLURM job; submit it with:  sbatch slurm-mpi.sh
# The run stops before the job ends, with status 75, and the same sbatch continues it.
# Lines that begin with ##SBATCH are off: edit them and take one # away.
#SBATCH --job-name=fit
#SBATCH --ntasks=4
#SBATCH --time=02:00:00
#SBATCH --output=fit-%j.log
##SBATCH --mem-per-cpu=2G
##SBATCH --partition=long

# EDIT: the environment that holds mpiabc and its mpirun, after `module load` and the like.
export PATH="$HOME/.venv/bin:$PATH"

export MPIABC_WALLTIME=auto  # for a run that is given no walltime
exec mpirun -n "$SLURM_NTASKS" python -u fit.py
