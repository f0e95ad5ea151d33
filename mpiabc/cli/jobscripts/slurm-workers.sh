#!/bin/bash
# An array of SLURM jobs, each of them a Redis worker that joins runs when it starts; submit it with:
#     mpiabc broker start          once, with --bind, on a machine that the nodes reach
#     sbatch @file@      as often as you like, before or during a run
# Lines that begin with ##SBATCH are off: edit them and take one # away.
#SBATCH --job-name=@name@
#SBATCH --array=1-@ranks@
#SBATCH --cpus-per-task=@cpus@
#SBATCH --time=@walltime@
#SBATCH --output=@name@-%A_%a.log
##SBATCH --mem-per-cpu=@memory@
##SBATCH --partition=@queue@

# EDIT: the environment that holds mpiabc, after `module load` and the like.
export PATH="@bin@:$PATH"

# EDIT: the file of `mpiabc broker start`, which holds address and password, on a disk that all nodes see.
broker=@broker@

# The worker leaves two minutes before its job ends.
exec python -m mpiabc worker --broker "$broker" --processes "$SLURM_CPUS_PER_TASK" --runtime @runtime@s
