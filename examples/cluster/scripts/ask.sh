#!/bin/sh
# ask.sh PORTS WORKERS: asks each worker who it is. 10.0.2.2 is the host's loopback as a machine on a user network sees it.
set -eu

for number in $(seq "$2"); do
    timeout 10 wget -q -O - "http://10.0.2.2:$1$number/"
done >answers.txt
echo "the head heard $(wc -l <answers.txt) workers"
cat answers.txt
