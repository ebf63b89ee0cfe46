#!/bin/sh
# Serves index.html on port 80. Running it again changes nothing but the content.
set -eu

sudo mkdir -p /srv/www
sudo cp "$HOME/index.html" /srv/www/index.html

# init starts the server, keeps it alive, and starts it again when the machine boots.
server='::respawn:/bin/busybox httpd -f -p 80 -h /srv/www'
if ! grep -qxF "$server" /etc/inittab; then
    echo "$server" | sudo tee -a /etc/inittab >/dev/null
    sudo kill -HUP 1
fi
sync

tries=0
until wget -q -O /dev/null http://127.0.0.1/ 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 50 ] || { echo "nothing answers on port 80" >&2; exit 1; }
    sleep 0.2
done
echo "$(hostname) serves"
