#!/usr/bin/env bash
# A Grid Engine of one host on the loopback, with ports, logs and state of its own.
#
#   tests/clusters/sge.sh start FOLDER    prints the environment of its clients once the host is up
#   tests/clusters/sge.sh stop FOLDER
#
# Root may submit jobs, which a minimal uid of 1000 forbids elsewhere. Needs root, and Debian's packages gridengine-master, -exec and -client.
set -euo pipefail

folder=$2
host=$(hostname)

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

as_admin() {
    setpriv --reuid sgeadmin --regid sgeadmin --clear-groups "$@"
}

configure() {
    mkdir -p "$folder"/{default/common,spooldb,qmaster/job_scripts,execd}
    ln -sf /usr/share/gridengine/util "$folder/util"
    cat >"$folder/default/common/bootstrap" <<END
admin_user              sgeadmin
default_domain          none
ignore_fqdn             false
spooling_method         berkeleydb
spooling_lib            libspoolb
spooling_params         $folder/spooldb
binary_path             /usr/sbin
qmaster_spool_dir       $folder/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
END
    echo localhost >"$folder/default/common/act_qmaster"
    echo "localhost $host" >"$folder/default/common/host_aliases"
    {
        echo "SGE_ROOT=$folder"
        echo "SGE_CELL=default"
        echo "SGE_QMASTER_PORT=$(free_port)"
        echo "SGE_EXECD_PORT=$(free_port)"
    } >"$folder/environment"
    chown -R sgeadmin: "$folder"
    chmod 755 "$folder"
}

# The scheduler looks at every change and every second; the default is every 15 s.
populate() {
    qconf -ah localhost
    qconf -as localhost
    qconf -sconf | sed -e "s#^execd_spool_dir .*#execd_spool_dir $folder/execd#" \
        -e 's/^min_uid .*/min_uid 0/' -e 's/^min_gid .*/min_gid 0/' \
        -e 's/^login_shells .*/login_shells NONE/' \
        -e 's/^load_report_time .*/load_report_time 00:00:01/' >"$folder/global"
    qconf -Mconf "$folder/global"
    qconf -ssconf | sed -e 's/^schedule_interval .*/schedule_interval 0:0:1/' \
        -e 's/^flush_submit_sec .*/flush_submit_sec 1/' \
        -e 's/^flush_finish_sec .*/flush_finish_sec 1/' >"$folder/schedule"
    qconf -Msconf "$folder/schedule"
    cat >"$folder/pe" <<END
pe_name            mpi
slots              64
user_lists         NONE
xuser_lists        NONE
start_proc_args    NONE
stop_proc_args     NONE
allocation_rule    \$fill_up
control_slaves     TRUE
job_is_first_task  FALSE
urgency_slots      min
accounting_summary FALSE
qsort_args         NONE
END
    qconf -Ap "$folder/pe"
}

add_queue() {
    qconf -sq | sed -e 's/^qname .*/qname all.q/' -e 's/^hostlist .*/hostlist localhost/' \
        -e 's/^slots .*/slots 4/' -e 's/^pe_list .*/pe_list mpi/' -e 's#^shell .*#shell /bin/bash#' \
        -e 's/^load_thresholds .*/load_thresholds NONE/' -e 's/^rerun .*/rerun TRUE/' >"$folder/queue"
    qconf -Aq "$folder/queue"
}

start() {
    trap 'tail -n 20 "$folder"/log >&2' ERR
    configure
    set -a
    # shellcheck disable=SC1091
    . "$folder/environment"
    set +a
    {
        as_admin /usr/share/gridengine/scripts/init_cluster "$folder" default "$folder/spooldb" sgeadmin
        sge_qmaster
        wait_for qconf -sconf
        populate
        SGE_EXECD_PIDFILE=$folder/execd.pid sge_execd
        add_queue
    } >"$folder/log" 2>&1
    wait_for is_up
    cat "$folder/environment"
}

is_up() {
    qstat -f | grep -q 'all.q@localhost .* 0/0/4 .*lx-amd64 *$'
}

wait_for() {
    for _ in $(seq 1000); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    cat "$folder/log" "$folder"/*/messages "$folder"/*/*/messages >&2
    exit 1
}

# Some remove their file at once, and then take their time.
stop() {
    pids=$(cat "$folder"/{execd.pid,qmaster/qmaster.pid} 2>/dev/null || true)
    for signal in TERM KILL; do
        for pid in $pids; do kill -s "$signal" "$pid" 2>/dev/null || true; done
        sleep 1
    done
}

"$1"
