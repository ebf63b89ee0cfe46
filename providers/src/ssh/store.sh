# Arguments: destination, name of the source, mode, size, owner. The content comes on standard input.
dest=$1
[ ! -d "$dest" ] || dest=$dest/$2
if [ -d "$dest" ]; then
    echo "$dest is a folder" >&2
    exit 1
fi
folder=$(dirname "$dest")
mkdir -p "$folder" || exit 1
part=$(mktemp "$folder/.vmctl.XXXXXX") || exit 1
trap 'rm -f "$part"' EXIT
# SIGPIPE comes with the message of an upload whose connection broke.
trap 'exit 1' HUP INT PIPE TERM
cat >"$part" || exit 1
size=$(wc -c <"$part")
if [ "$size" -ne "$4" ]; then
    echo "only $size of $4 bytes arrived" >&2
    exit 1
fi
{ [ -z "$5" ] || chown "$5" "$part"; } && chmod "$3" "$part" && mv -f "$part" "$dest"
