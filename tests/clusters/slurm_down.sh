#!/bin/bash
# slurm_down.sh FOLDER: end what slurm_up.sh started there, and its jobs.
set -u
root=$(realpath "$1")
export SLURM_CONF=$root/slurm.conf
timeout 5 scancel --user "$(id -un)" 2> /dev/null
sleep 0.5
pids=$(cat "$root"/slurmd.*.pid "$root/slurmctld.pid" "$root/munge/munged.pid" 2> /dev/null)
kill $pids 2> /dev/null
for _ in $(seq 50); do
    kill -0 $pids 2> /dev/null || exit 0
    sleep 0.1
done
kill -KILL $pids 2> /dev/null
exit 0
