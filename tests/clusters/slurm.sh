#!/usr/bin/env bash
# A Slurm of one node on the loopback, with keys, ports, logs and state of its own.
#
#   tests/clusters/slurm.sh start FOLDER    prints the environment of its clients once the node is idle
#   tests/clusters/slurm.sh stop FOLDER
#
# Needs root, and Debian's packages slurm-wlm and munge.
set -euo pipefail

folder=$2
host=$(hostname -s)

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# MessageTimeout, TCPTimeout: a daemon that a busy machine lets wait for ten seconds has its job begun anew, by
# default, and that one may stay "completing".
# cred_expire is also what a requeued job waits: 120 s by default.
# config_overrides: the node has the CPUs that are said here, whatever the machine has.
configure() {
    mkdir -p "$folder"/{munge,state,spool}
    head -c 128 /dev/urandom >"$folder/munge/key"
    chown -R munge: "$folder/munge"
    chmod 755 "$folder" "$folder/munge"
    chmod 600 "$folder/munge/key"
    cat >"$folder/slurm.conf" <<END
ClusterName=mpiabc
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=6
CredType=cred/munge
CommunicationParameters=NoInAddrAny
MessageTimeout=100
TCPTimeout=60
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
OverTimeLimit=0
KillWait=5
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=1:00:00 OverSubscribe=NO State=UP
END
}

start() {
    configure
    export SLURM_CONF="$folder/slurm.conf"
    setpriv --reuid munge --regid munge --clear-groups \
        munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" --num-threads=2
    slurmctld -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF"
    for _ in $(seq 1000); do
        if sinfo --noheader --format %T 2>/dev/null | grep -qx idle; then
            echo "SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.2
    done
    tail -n 20 "$folder"/*.log >&2
    exit 1
}

# Some remove their file at once, and then take their time.
stop() {
    pids=$(cat "$folder"/{slurmctld.pid,slurmd.pid,munge/pid} 2>/dev/null || true)
    for signal in TERM KILL; do
        for pid in $pids; do kill -s "$signal" "$pid" 2>/dev/null || true; done
        sleep 1
    done
}

"$1"
