#!/bin/bash
# An array of SLURM jobs, each of them a Redis worker that joins runs when it starts; submit it with:
#     mpiabc broker start          once, with --bind, on a machine that the nodes reach
#     sbatch slurm-workers.sh      as often as you like, before or during a run
# Lines that begin with ##SBATCH are off: edit them and take one # away.
#SBATCH --job-name=fit
#SBATCH --array=1-4
#SBATCH --cpus-per-task=1
#SBATCH --time=02:00:00
#SBATCH --output=fit-%A_%a.log
##SBATCH --mem-per-cpu=2G
##SBATCH --partition=long

# EDIT: the environment that holds mpiabc, after `module load` and the like.
export PATH="$HOME/.venv/bin:$PATH"

# EDIT: the file of `mpiabc broker start`, which holds address and password, on a disk that all nodes see.
broker="$HOME/.mpiabc/broker.json"

# The worker leaves two minutes before its job ends.
exec python -m mpiabc worker --broker "$broker" --processes "$SLURM_CPUS_PER_TASK" --runtime 7080s
