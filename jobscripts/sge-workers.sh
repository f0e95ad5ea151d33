#!/bin/bash
# An array of SGE jobs, each of them a Redis worker that joins runs when it starts; submit it with:
#     mpiabc broker start       once, with --bind, on a machine that the nodes reach
#     qsub sge-workers.sh       as often as you like, before or during a run
# Lines that begin with ##$ are off: edit them and take one # away.
#$ -N fit
#$ -S /bin/bash
#$ -cwd
#$ -j y
#$ -t 1-4
#$ -l h_rt=02:00:00
##$ -l h_vmem=2G
##$ -q long

# EDIT: the environment that holds mpiabc, after `module load` and the like.
export PATH="$HOME/.venv/bin:$PATH"

# EDIT: the file of `mpiabc broker start`, which holds address and password, on a disk that all nodes see.
broker="$HOME/.mpiabc/broker.json"

# The worker leaves two minutes before its job ends.
exec python -m mpiabc worker --broker "$broker" --processes "$NSLOTS" --runtime 7080s
