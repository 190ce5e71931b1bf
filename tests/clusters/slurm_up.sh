#!/bin/bash
# slurm_up.sh FOLDER PORT: a throw-away SLURM of two nodes on this machine, on loopback alone, with
# two make-believe GPUs and eight shards a node. No root, no systemd, no accounting.
set -eu
root=$(realpath -m "$1") port=$2 host=$(hostname -s) user=$(id -un)
mkdir -p "$root"/{state,log,dev,munge}
chmod 711 "$root/munge"
(umask 377; head -c 1024 /dev/urandom > "$root/munge/key")
munged --force --socket="$root/munge/s" --key-file="$root/munge/key" \
    --pid-file="$root/munge/munged.pid" --log-file="$root/munge/log" --seed-file="$root/munge/seed"
cat > "$root/slurm.conf" <<C
ClusterName=mixbench
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
SlurmctldPort=$port
AuthType=auth/munge
AuthInfo=socket=$root/munge/s
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu,shard
SchedulerParameters=sched_interval=1,bf_interval=1
KillWait=5
ReturnToService=2
SlurmdTimeout=10
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool.%n
SlurmctldPidFile=$root/slurmctld.pid
SlurmdPidFile=$root/slurmd.%n.pid
SlurmctldLogFile=$root/log/slurmctld.log
SlurmdLogFile=$root/log/slurmd.%n.log
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=8 RealMemory=8000 Gres=gpu:fake:2,shard:8
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=8 RealMemory=8000 Gres=gpu:fake:2,shard:8
PartitionName=main Nodes=ALL Default=YES
C
for node in n1 n2; do
    for gpu in 0 1; do
        device=$root/dev/${node}gpu$gpu
        ln -sfn /dev/null "$device" # a character device with a path of its own is all it needs
        echo "NodeName=$node Name=gpu Type=fake Flags=nvidia_gpu_env File=$device"
    done
    echo "NodeName=$node Name=shard Count=8"
done > "$root/gres.conf"
export SLURM_CONF=$root/slurm.conf
slurmctld -c
for node in n1 n2; do
    mkdir -p "$root/spool.$node"
    slurmd -N "$node"
done
for _ in $(seq 100); do
    [ "$(sinfo -h -o %T | sort -u)" = idle ] && exit 0
    sleep 0.1
done
sinfo
exit 1
