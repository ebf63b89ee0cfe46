# Arguments: destination, name of the source, mode, size, owner. $0 is the script that stores the content.
dest=$1
case $dest in "~/"*) dest=${dest#"~/"} ;; esac
case $dest in */) dest=$dest$2 ;; -*) dest=./$dest ;; esac
[ ! -d "$dest" ] || dest=$dest/$2
folder=$(dirname "$dest")
if [ -z "$5" ] || [ "$(id -u)" -eq 0 ]; then
    if mkdir -p "$folder" 2>/dev/null && [ -w "$folder" ]; then
        exec sh -c "$0" sh "$dest" "$2" "$3" "$4" "$5"
    fi
fi
if sudo -n true </dev/null >/dev/null 2>&1; then
    exec sudo -n sh -c "$0" sh "$dest" "$2" "$3" "$4" "$5"
fi
as=${5:+ as $5}
echo "$(id -un) may not write to $folder$as, and sudo asks for a password or is missing" >&2
exit 1
