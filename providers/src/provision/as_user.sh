# Arguments: a user, then a command. Runs the command as that user, in the user's home.
user=$1
shift
[ "$(id -un)" != "$user" ] || exec "$@"
if ! id -u "$user" >/dev/null 2>&1; then
    echo "the guest has no user $user" >&2
    exit 125
fi
home='cd 2>/dev/null || cd /; exec "$@"'
if [ "$(id -u)" -eq 0 ] && command -v runuser >/dev/null 2>&1; then
    # The name holds small letters, digits, `_` and `-` alone.
    eval "HOME=~$user"
    USER=$user LOGNAME=$user
    export HOME USER LOGNAME
    exec runuser -u "$user" -- sh -c "$home" sh "$@"
fi
if sudo -n -u "$user" true </dev/null >/dev/null 2>&1; then
    exec sudo -n -H -u "$user" -- sh -c "$home" sh "$@"
fi
echo "$(id -un) may not run commands as $user: sudo asks for a password or is missing" >&2
exit 125
