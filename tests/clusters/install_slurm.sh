#!/bin/sh
# Install Debian's SLURM and munge, unless they are here. Starts nothing.
set -eu
command -v slurmctld > /dev/null && command -v munged > /dev/null && exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends slurm-wlm munge ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge; }
