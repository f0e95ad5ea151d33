#!/bin/bash
# An array of SGE jobs, each of them a Redis worker that joins runs when it starts; submit it with:
#     mpiabc broker start       once, with --bind, on a machine that the nodes reach
#     qsub @file@       as often as you like, before or during a run
# Lines that begin with ##$ are off: edit them and take one # away.
#$ -N @name@
#$ -S /bin/bash
#$ -cwd
#$ -j y
#$ -t 1-@ranks@
#$ -l h_rt=@walltime@
##$ -l h_vmem=@memory@
##$ -q @queue@

# EDIT: the environment that holds mpiabc, after `module load` and the like.
export PATH="@bin@:$PATH"

# EDIT: the file of `mpiabc broker start`, which holds address and password, on a disk that all nodes see.
broker=@broker@

# The worker leaves two minutes before its job ends.
exec python -m mpiabc worker --broker "$broker" --processes "$NSLOTS" --runtime @runtime@s
