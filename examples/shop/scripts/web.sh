#!/bin/sh
# Makes the page of a piece that the host shares and of what the machine with the prices says.
set -eu
mkdir -p "$HOME/page"
{ cat /mnt/site/head.html; timeout 30 wget -q -O - http://prices/apples; } >"$HOME/page/index.html"
cat "$HOME/page/index.html"
sudo httpd -p 80 -h "$HOME/page"
