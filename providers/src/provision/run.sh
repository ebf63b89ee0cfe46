# Arguments: size of the script, then the words that run it. The script comes on standard input.
#
# The work lives as long as standard input stays open: when this side ends it, or the connection breaks, the work
# is ended with all its processes. The folder is removed in any case.
old=$(umask)
umask 077
folder=$(mktemp -d) || exit 125
trap 'rm -rf "$folder"' EXIT
trap 'exit 129' HUP INT TERM
size=$1
shift
head -c "$size" >"$folder/script"
if [ "$(wc -c <"$folder/script")" -ne "$size" ]; then
    echo "the script did not arrive whole" >&2
    exit 125
fi
umask "$old"
exec 3<&0 </dev/null
command -v setsid >/dev/null 2>&1 || setsid() { "$@"; }
setsid "$@" "$folder/script" 3<&- &
work=$!
end() { kill "-$1" "-$work" 2>/dev/null || kill "-$1" "$work"; }
(
    cat <&3 >/dev/null
    : >"$folder/cut"
    end TERM
    sleep 5
    end KILL
) >/dev/null 2>&1 &
watch=$!
exec 3<&-
wait "$work"
status=$?
kill "$watch" 2>/dev/null
[ ! -e "$folder/cut" ] || end KILL 2>/dev/null
exit "$status"
