#!/bin/sh
# Asks the database by its name, and serves what the apples cost.
set -eu
apples=$(timeout 30 wget -q -O - http://db:8000/apples)
mkdir -p "$HOME/prices"
echo "$apples apples for $((apples * 2)) coins" >"$HOME/prices/apples"
sudo httpd -p 80 -h "$HOME/prices"
