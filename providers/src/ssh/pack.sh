# Argument: what to pack, a file or a folder. Its archive, with one name at its top, goes to standard output.
src=$1
case $src in "~/"*) src=${src#"~/"} ;; "~") src=. ;; esac
case $src in -*) src=./$src ;; esac
as=
if [ ! -r "$src" ] || { [ -d "$src" ] && [ ! -x "$src" ]; }; then
    if sudo -n test -e "$src" </dev/null 2>/dev/null; then
        as="sudo -n"
    elif [ ! -e "$src" ]; then
        echo "there is no such file or folder" >&2
        exit 1
    else
        echo "$(id -un) may not read it, and sudo asks for a password or is missing" >&2
        exit 1
    fi
fi
if [ -z "$as" ]; then
    src=$(cd "$(dirname "$src")" && pwd)/$(basename "$src")
fi
name=$(basename "$src")
# The home folder itself, or the root.
case $name in . | .. | /) exec $as tar -c -f - -C "$src" . ;; esac
exec $as tar -c -f - -C "$(dirname "$src")" "./$name"
