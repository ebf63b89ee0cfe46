# Arguments: sizes of the environment and of the script, then the words that run the script. Both come on standard
# input, one after the other.
#
# The work lives as long as standard input stays open: when this side ends it, or the connection breaks, the work
# is ended with all its processes. The folder is removed in any case.
old=$(umask)
umask 077
folder=$(mktemp -d) || exit 125
trap 'rm -rf "$folder"' EXIT
# Caught and not ignored, so that the work does not inherit it. A lost connection brings SIGHUP from some sshds, and
# SIGPIPE when this shell reports how the work ended.
trap : HUP INT PIPE TERM
# Read by one process: it may take more from its input than it passes on. Programs begin slowly in an emulated guest.
head -c "$(($1 + $2))" >"$folder/script"
if [ "$(wc -c <"$folder/script")" -ne "$(($1 + $2))" ]; then
    echo "the script did not arrive whole" >&2
    exit 125
fi
environment=/dev/null
if [ "$1" -gt 0 ]; then
    mv "$folder/script" "$folder/both"
    environment=$folder/environment
    head -c "$1" "$folder/both" >"$environment"
    tail -c "$2" "$folder/both" >"$folder/script"
    rm "$folder/both"
fi
shift 2
umask "$old"
exec 3<&0 </dev/null
group=$(command -v setsid) || group=
# The environment may hold any name, so that no variable is used once it is there.
(
    set -- $group "$@" "$folder/script"
    . "$environment"
    exec "$@"
) 3<&- &
work=$!
end() { kill "-$1" "-$work" 2>/dev/null || kill "-$1" "$work"; }
(
    cat <&3 >/dev/null
    touch "$folder/cut"
    end TERM
    sleep 5
    end KILL
) >/dev/null 2>&1 &
watch=$!
exec 3<&-
# A signal to this shell interrupts the waiting and not the work.
while wait "$work"; status=$?; kill -0 "$work" 2>/dev/null; do :; done
kill "$watch" 2>/dev/null
[ ! -e "$folder/cut" ] || end KILL 2>/dev/null
exit "$status"
