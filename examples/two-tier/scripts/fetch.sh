#!/bin/sh
# Fetches what db publishes, refuses anything else than what was expected, and publishes a page about it.
set -eu

# 10.0.2.2 is the host's loopback as a machine on a user network sees it; 18080 is forwarded to db.
source=http://10.0.2.2:18080/message.txt
timeout 10 wget -q -O "$HOME/fetched.txt" "$source"
cmp "$HOME/fetched.txt" "$HOME/expected.txt"

sudo mkdir -p /srv/www
{
    echo "$(hostname) read this from db:"
    cat "$HOME/fetched.txt"
} | sudo tee /srv/www/index.html >/dev/null

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
echo "fetched what db published: $(cat "$HOME/fetched.txt")"
