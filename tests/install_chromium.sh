#!/bin/sh
# Install Debian's Chromium, which tests the site, unless it is here. Starts nothing.
set -eu
command -v chromium > /dev/null && exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends chromium ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
