#!/bin/sh
# illumos, as far as vmctl asks it: volumes, vnics and zones, each a file. What is changed is noted, a line each.
host=$(dirname "$0")/../host
told="$(basename "$0") $*"
fail() {
    echo "$told: $*" >&2
    exit 1
}
note() { printf '%s\n' "$told" >>"$host/deeds"; }
volume() { printf '%s/zfs/%s' "$host" "$(printf %s "$1" | tr / %)"; }
# Writes the file of the volume $1 of $2 bytes, which bears the mark $3.
mark() {
    case $3 in
    vmctl:id=*) id=${3#*=} image=- ;;
    *) id=- image=${3#*=} ;;
    esac
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$id" "$image" >"$(volume "$1")"
    mkdir -p "$(dirname "$host/zvol/$1")"
    truncate -s "$2" "$host/zvol/$1"
}
# The state of the zone $1.
state() { cat "$host/zones/$1/state" 2>/dev/null || echo none; }
# Brings the zone $1 from one of the states $2 to the state $3.
bring() {
    case " $2 " in
    *" $(state "$1") "*) echo "$3" >"$host/zones/$1/state" ;;
    *) fail "the zone is $(state "$1")" ;;
    esac
}

case $(basename "$0") in
zfs)
    case $1 in
    list)
        cat "$host"/zfs/* 2>/dev/null
        exit 0
        ;;
    create) # -V SIZE -o MARK NAME
        [ ! -e "$(volume "$6")" ] || fail "dataset already exists"
        mark "$6" "$3" "$5"
        ;;
    snapshot)
        [ -e "$(volume "${2%@*}")" ] || fail "dataset does not exist"
        sed "s|^[^	]*|$2|" "$(volume "${2%@*}")" >"$(volume "$2")"
        ;;
    clone) # -o MARK SNAPSHOT NAME
        [ ! -e "$(volume "$5")" ] || fail "dataset already exists"
        mark "$5" "$(cut -f2 "$(volume "$4")")" "$3"
        cp "$host/zvol/${4%@*}" "$host/zvol/$5"
        ;;
    set) # volsize=SIZE NAME
        mark "$3" "${2#*=}" "vmctl:id=$(cut -f3 "$(volume "$3")")"
        ;;
    destroy)
        [ ! -e "$(volume "$2@v1")" ] || fail "volume has children"
        rm "$(volume "$2")" "$host/zvol/$2"
        ;;
    *) fail "unknown" ;;
    esac
    ;;
dladm)
    case $1 in
    show-vnic)
        cat "$host"/vnics/* 2>/dev/null
        exit 0
        ;;
    create-vnic) # -t -l LINK -m MAC NAME
        [ ! -e "$host/vnics/$7" ] || fail "object already exists"
        printf '%s:%s:%s\n' "$7" "$4" "$(printf %s "$6" | sed 's/:/\\:/g')" >"$host/vnics/$7"
        ;;
    delete-vnic)
        rm "$host/vnics/$2"
        ;;
    *) fail "unknown" ;;
    esac
    ;;
arp) exit 0 ;;
zonecfg) # -z NAME ...
    zone=$host/zones/$2
    case "$3 $4" in
    "info attr")
        [ -e "$zone/state" ] || fail "no such zone configured"
        tr ';' '\n' <"$zone/config" | sed -n 's/^ set name=/	name: /p; s/^ set value=/	value: /p'
        exit 0
        ;;
    "delete -F")
        [ "$(state "$2")" = configured ] || fail "the zone is $(state "$2")"
        rm -r "$zone"
        ;;
    *)
        [ ! -e "$zone" ] || fail "zone already configured"
        mkdir "$zone"
        printf %s "$3" >"$zone/config"
        echo configured >"$zone/state"
        ;;
    esac
    ;;
zoneadm)
    case $1$3 in
    list*)
        for zone in "$host"/zones/*; do
            name=$(basename "$zone")
            echo "-:$name:$(cat "$zone/state"):/zones/$name::lipkg:excl"
        done
        exit 0
        ;;
    -zclone) bring "$2" configured installed ;;
    -zboot) bring "$2" installed running ;;
    -zhalt)
        bring "$2" running installed
        # Nothing is left in a zone that is halted.
        for pid in $(cat "$host/zones/$2/pids" 2>/dev/null); do
            kill -9 "$pid" 2>/dev/null
            while grep -q '^State:.[^Z]' "/proc/$pid/status" 2>/dev/null; do sleep 0.01; done
        done
        rm -f "$host/zones/$2/pids"
        ;;
    -zuninstall) bring "$2" "installed incomplete" configured ;;
    *) fail "unknown" ;;
    esac
    ;;
zlogin) # NAME SCRIPT
    zone=$host/zones/$1
    [ "$(state "$1")" = running ] || fail "the zone is $(state "$1")"
    zone=$(cd "$zone" && pwd)
    # The zone has its own files and its own addresses: here a folder, and the loopback.
    script=$(printf %s "$2" | sed "s|/var/vmctl|$zone/var|g; s|0\.0\.0\.0|127.0.0.1|")
    case $2 in
    tail*) exec sh -c "$script" ;;
    esac
    sh -c "$script; echo \$! >>'$zone/pids'" || fail "the script failed"
    ;;
*) fail "unknown" ;;
esac
note
