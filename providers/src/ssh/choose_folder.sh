# Arguments: destination, a file that comes last, owner, mode. $0 is the script that unpacks the content.
dest=$1
case $dest in "~/"*) dest=${dest#"~/"} ;; "~") dest=. ;; esac
case $dest in -*) dest=./$dest ;; esac
dest=${dest%/}
[ -n "$dest" ] || dest=/.
folder=$(dirname "$dest")
if [ -z "$3" ] || [ "$(id -u)" -eq 0 ]; then
    if mkdir -p "$folder" 2>/dev/null && [ -w "$folder" ] && { [ ! -e "$dest" ] || [ -w "$dest" ]; }; then
        exec sh -c "$0" sh "$dest" "$2" "$3" "$4"
    fi
fi
if sudo -n true </dev/null >/dev/null 2>&1; then
    exec sudo -n sh -c "$0" sh "$dest" "$2" "$3" "$4"
fi
echo "$(id -un) may not write to $dest as asked, and sudo asks for a password or is missing" >&2
exit 1
