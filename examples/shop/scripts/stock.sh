#!/bin/sh
# Puts the volume to use, counts the apples if nobody has yet, and serves the count.
set -eu
disk=/dev/disk/by-id/virtio-stock
blkid "$disk" >/dev/null || mkfs.ext4 -q "$disk"
mkdir -p /srv/stock
grep -q "^$disk " /etc/fstab || echo "$disk /srv/stock ext4 defaults 0 2" >>/etc/fstab
mountpoint -q /srv/stock || mount /srv/stock
[ -e /srv/stock/apples ] || echo "$APPLES" >/srv/stock/apples
sync
systemctl daemon-reload
systemctl enable --now --quiet stock.service
