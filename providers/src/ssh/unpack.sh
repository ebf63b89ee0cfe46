# Arguments: destination, a file that comes last, owner, mode of the folder. An archive of a folder's content comes on standard input.
dest=$1
folder=$(dirname "$dest")
mkdir -p "$folder" || exit 1
part=$(mktemp -d "$folder/.vmctl.XXXXXX") || exit 1
trap 'rm -rf "$part"' EXIT
# SIGPIPE comes with the message of an upload whose connection broke.
trap 'exit 1' HUP INT PIPE TERM
tar -x -p -o -f - -C "$part" || exit 1
if [ ! -e "$part/$2" ]; then
    echo "the folder did not arrive whole" >&2
    exit 1
fi
rm -f "$part/$2"
chmod "$4" "$part" || exit 1
[ -z "$3" ] || chown -R -h "$3" "$part" || exit 1
if [ ! -e "$dest" ]; then
    mv "$part" "$dest"
    exit
fi
# What a folder that is there already has of its own stays: its owner and its mode too.
for entry in "$part"/* "$part"/.[!.]* "$part"/..?*; do
    if [ -e "$entry" ] || [ -L "$entry" ]; then
        cp -af "$entry" "$dest/" || exit 1
    fi
done
