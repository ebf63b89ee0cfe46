# Sourced by the image scripts: messages, and Debian 12 packages by apt without touching the system.
# The caller sets SCRIPT (its name) and, before apt_setup, CACHE (a folder that is kept between runs).

say() { printf '%s: %s\n' "$SCRIPT" "$*" >&2; }
die() { say "error: $*"; exit 1; }
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# need PROGRAM_OR_FILE PACKAGE ...: refuses to go on without them, and names what to install.
need() {
  local missing=""
  while [ $# -gt 0 ]; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || missing="$missing $2"
    shift 2
  done
  [ -z "$missing" ] || die "missing:$missing. Run tests/setup, or: apt-get install --no-install-recommends$missing"
}

# as_root "$@": runs the script again under fakeroot if it is not root; packages then unpack with root's ownership.
as_root() {
  [ "$(id -u)" != 0 ] || return 0
  command -v fakeroot >/dev/null || die "run as root, or install fakeroot (tests/setup does)"
  exec fakeroot -- "$0" "$@"
}

# The apt sources of Debian 12 that this system has itself, if it is one.
own_sources() {
  . /etc/os-release
  [ "${ID:-}" = debian ] && [ "${VERSION_CODENAME:-}" = bookworm ] || return 0
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
    awk -v key=$KEYRING '$2 ~ /^bookworm(-updates|-security)?$/ && $3 == "main" && $1 ~ /debian/ {
      print "deb [arch=amd64 signed-by=" key "]", $0 }' | sort -u
}

# The same from Debian's mirror network.
public_sources() {
  printf "deb [arch=amd64 signed-by=$KEYRING] http://deb.debian.org/%s main\n" \
    'debian bookworm' 'debian bookworm-updates' 'debian-security bookworm-security'
}

bookworm_sources() {
  local own; own=$(own_sources)
  if [ -n "$own" ]; then printf '%s\n' "$own"; else public_sources; fi
}

# An apt of our own below $CACHE/apt: it knows nothing of the system's packages and needs no root.
apt_setup() {
  APT_DIR=$CACHE/apt APT_LOG=$CACHE/apt.log
  mkdir -p "$APT_DIR"/{lists/partial,cache/archives/partial}
  : >"$APT_DIR/status"
  bookworm_sources >"$APT_DIR/sources.list"
  cat >"$APT_DIR/apt.conf" <<CONF
Dir::Etc::SourceList "$APT_DIR/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$APT_DIR";
Dir::State::Lists "$APT_DIR/lists";
Dir::State::Status "$APT_DIR/status";
Dir::Cache "$APT_DIR/cache";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
  export APT_CONFIG=$APT_DIR/apt.conf
}

# Refreshes the lists, once a run. The system's own sources may hold what Debian's key does not sign; then the public
# ones are asked.
apt_update() {
  [ -z "${APT_UPDATED:-}" ] || return 0
  say "reading Debian 12's package lists"
  if ! apt-get -q --error-on=any update >"$APT_LOG" 2>&1; then
    public_sources >"$APT_DIR/sources.list"
    apt-get -q --error-on=any update >"$APT_LOG" 2>&1 || {
      tail -5 "$APT_LOG" >&2; die "apt-get update failed; its log is $APT_LOG"; }
  fi
  APT_UPDATED=1
}
