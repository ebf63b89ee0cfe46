#!/bin/sh
# Says what the template left behind.
set -eu
echo "$(cat "$HOME/greeting.txt"): $(nproc) CPUs"
