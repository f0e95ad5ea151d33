#!/bin/bash
# A run on the ranks of one SLURM job; submit it with:  sbatch @file@
# The run stops before the job ends, with status 75, and the same sbatch continues it.
# Lines that begin with ##SBATCH are off: edit them and take one # away.
#SBATCH --job-name=@name@
#SBATCH --ntasks=@ranks@
#SBATCH --time=@walltime@
#SBATCH --output=@name@-%j.log
##SBATCH --mem-per-cpu=@memory@
##SBATCH --partition=@queue@

# EDIT: the environment that holds mpiabc and its mpirun, after `module load` and the like.
export PATH="@bin@:$PATH"

export MPIABC_WALLTIME=auto  # for a run that is given no walltime
exec mpirun -n "$SLURM_NTASKS" python -u @script@
