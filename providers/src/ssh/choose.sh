# Arguments: destination, name of the source, mode, size. $0 is the script that stores the content.
dest=$1
case $dest in "~/"*) dest=${dest#"~/"} ;; esac
case $dest in */) dest=$dest$2 ;; -*) dest=./$dest ;; esac
[ ! -d "$dest" ] || dest=$dest/$2
folder=$(dirname "$dest")
if mkdir -p "$folder" 2>/dev/null && [ -w "$folder" ]; then
    exec sh -c "$0" sh "$dest" "$2" "$3" "$4"
fi
if sudo -n true </dev/null >/dev/null 2>&1; then
    exec sudo -n sh -c "$0" sh "$dest" "$2" "$3" "$4"
fi
echo "$(id -un) may not write to $folder, and sudo asks for a password or is missing" >&2
exit 1
