//! What a machine from a template must have of its own before anybody is told of it: host key, login key, machine id,
//! boot id, random numbers, host name, the right time. Its guest is told by a script that root runs.

use std::io::Cursor;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;
use uuid::Uuid;

use super::super::backend::QemuBackend;
use super::super::manifest::{Manifest, Owner};
use super::{advance, stage};
use crate::error::{Error, Result};
use crate::keys;
use crate::provision::OutputStream;
use crate::spec::{CloneStage, Cloned, VmHandle};
use crate::ssh::{Session, SshError, quote};
use crate::workdir::WorkDir;

/// How long it may take. A small emulated guest needs a second or two.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much of what the guest says against it is told.
const SAID: usize = 1024;

/// How the guest was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It went on from memory: all that it has is the template's.
    Awake,
    /// It booted from the disk: its seed gave it its keys and its host name.
    Booted,
}

impl QemuBackend {
    /// Renews a machine that booted from a template's disk, the first time that somebody logs in to it.
    pub(in super::super) async fn renew_booted(&self, vm: &VmHandle, session: &Session) -> Result<()> {
        let work = WorkDir::new(&vm.work_dir);
        let Owner::Ours(mut manifest) = Manifest::owner(&work, vm.id)? else { return Ok(()) };
        let cloned = manifest.warm.as_ref().and_then(|warm| warm.cloned.clone());
        match (stage(&manifest), cloned) {
            (Some(CloneStage::Booting), Some(cloned)) => {
                renew(session, vm, &cloned, Found::Booted).await?;
                advance(&mut manifest, &work, CloneStage::Renewed, cloned.cold)
            }
            _ => Ok(()),
        }
    }
}

/// Lets the guest take what is its own.
pub(super) async fn renew(session: &Session, vm: &VmHandle, cloned: &Cloned, found: Found) -> Result<()> {
    let work = WorkDir::new(&vm.work_dir);
    let user = keys::load_pair(&work.user_key()).map_err(SshError::from)?;
    let host = keys::load_pair(&work.host_key()).map_err(SshError::from)?;
    let own = Own {
        user_key: &user.public,
        former_key: &cloned.user_key,
        host_key: host.private.expose(),
        host_public: &host.public,
        hostname: &cloned.hostname,
        instance: vm.id.to_string(),
        source: cloned.source.to_string(),
        machine_id: Uuid::new_v4().simple().to_string(),
        boot_id: Uuid::new_v4().hyphenated().to_string(),
        seed: (0..4).map(|_| Uuid::new_v4().simple().to_string()).collect(),
    };
    let text = script(&own, found, SystemTime::now());
    let mut said = Vec::new();
    let running = session.exec("sudo -n sh -s -- \"$HOME\"", Cursor::new(text), |stream, bytes| {
        if stream == OutputStream::Stderr && said.len() < SAID {
            said.extend_from_slice(bytes);
        }
    });
    let status = timeout(PATIENCE, running)
        .await
        .map_err(|_| Error::Timeout { what: "the renewal of the guest".to_owned(), after: PATIENCE })??;
    if status.is_success() {
        return Ok(());
    }
    let said = crate::process::tail(&said, SAID);
    Err(Error::NotRenewed {
        said: if said.is_empty() { status.to_string() } else { format!("{status}: {said}") },
    })
}

/// What is the machine's own.
struct Own<'a> {
    user_key: &'a str,
    former_key: &'a str,
    host_key: &'a str,
    host_public: &'a str,
    hostname: &'a str,
    instance: String,
    source: String,
    machine_id: String,
    boot_id: String,
    seed: String,
}

/// The script: its values first, then what is done with them. It is told the home of who logs in.
///
/// An emulated guest that just woke up takes long to begin a program, so that the shell does what it can by itself.
fn script(own: &Own<'_>, found: Found, now: SystemTime) -> String {
    // Half a second later than now, which is when it runs at the earliest; dates of busybox know whole seconds only.
    let now = (now.duration_since(UNIX_EPOCH).unwrap_or_default() + Duration::from_millis(500)).as_secs();
    let values = [
        ("now", now.to_string()),
        ("user_key", own.user_key.trim().to_owned()),
        ("former_key", own.former_key.trim().to_owned()),
        ("host_key", own.host_key.to_owned()),
        ("host_public", own.host_public.trim().to_owned()),
        ("name", own.hostname.to_owned()),
        ("instance", own.instance.clone()),
        ("source", own.source.clone()),
        ("machine_id", own.machine_id.clone()),
        ("boot_id", own.boot_id.clone()),
        ("seed", own.seed.clone()),
    ];
    let mut text = "set -eu\n".to_owned();
    for (name, value) in values {
        text.push_str(&format!("{name}={}\n", quote(&value)));
    }
    let parts: &[&str] = match found {
        Found::Awake => &[BESIDE, RANDOM, BOOT_ID, MACHINE_ID, FORMER_KEY, OWN_KEY, HOSTNAME, HOST_KEY],
        // A boot made the kernel's random numbers and the boot's id anew, and the seed did the rest.
        Found::Booted => &[RANDOM_SEED, MACHINE_ID, FORMER_KEY],
    };
    text.push_str(&parts.concat());
    text
}

/// What nothing else waits for, beside the rest: the clock; and cloud-init, which finds the instance that the seed names,
/// and does at the next boot what it does at each one.
const BESIDE: &str = r#"
(
  date -u -s "@$now" >/dev/null
  if [ -f /var/lib/cloud/data/instance-id ]; then
    printf '%s\n' "$instance" >/var/lib/cloud/data/instance-id
    if [ -d "/var/lib/cloud/instances/$source" ]; then
      mv "/var/lib/cloud/instances/$source" "/var/lib/cloud/instances/$instance"
      ln -sfn "/var/lib/cloud/instances/$instance" /var/lib/cloud/instance
    fi
  fi
) &
beside=$!
"#;

/// Who can do nothing but write to /dev/urandom adds to what comes later, and cannot make sure of what comes next: the
/// kernel must say that it begins anew, by its driver of the generation id or by the ioctl RNDRESEEDCRNG (random(4)).
const RANDOM: &str = r#"
printf %s "$seed" >/dev/urandom
anew=
for device in /sys/bus/acpi/drivers/vmgenid/*:*; do [ ! -e "$device" ] || anew=1; done
if [ -n "$anew" ]; then :
elif perl -e 'open(my $f, ">", "/dev/urandom") or exit 1; ioctl($f, 0x5207, 0) or exit 1' 2>/dev/null; then :
elif python3 -c 'import fcntl; fcntl.ioctl(open("/dev/urandom", "wb"), 0x5207)' 2>/dev/null; then :
else echo "its random numbers cannot be begun anew" >&2; exit 1; fi
[ ! -f /var/lib/systemd/random-seed ] || head -c 512 /dev/urandom >/var/lib/systemd/random-seed
"#;

const RANDOM_SEED: &str = r#"
printf %s "$seed" >/dev/urandom
"#;

const BOOT_ID: &str = r#"
umask 022
printf '%s\n' "$boot_id" >/run/boot-id
mount -o bind /run/boot-id /proc/sys/kernel/random/boot_id
"#;

/// It may be read-only, which root does not mind.
const MACHINE_ID: &str = r#"
for file in /etc/machine-id /var/lib/dbus/machine-id; do
  [ ! -f "$file" ] || [ -L "$file" ] || printf '%s\n' "$machine_id" >"$file"
done
"#;

/// The key that the template was logged in to with opens this guest no more.
const FORMER_KEY: &str = r#"
keys=$1/.ssh/authorized_keys
former=${former_key#* }; former=${former%% *}
if [ -f "$keys" ]; then
  kept= found=
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      *"$former"*) found=1 ;;
      *) kept="$kept$line
" ;;
    esac
  done <"$keys"
  [ -z "$found" ] || printf %s "$kept" >"$keys"
fi
"#;

const OWN_KEY: &str = r#"
[ ! -f "$keys" ] || printf '%s\n' "$user_key" >>"$keys"
"#;

const HOSTNAME: &str = r#"
read -r before </proc/sys/kernel/hostname || :
if [ "$before" != "$name" ]; then
  printf '%s\n' "$name" >/proc/sys/kernel/hostname
  printf '%s\n' "$name" >/etc/hostname
  hosts=
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in 127.0.1.1[[:space:]]*) line="127.0.1.1 $name" ;; esac
    hosts="$hosts$line
"
  done </etc/hosts
  printf %s "$hosts" >/etc/hosts
fi
"#;

/// Last, since the next login is by the new key.
const HOST_KEY: &str = r#"
umask 077
done=
set -- /etc/ssh/ssh_host_*_key
if [ -e "$1" ]; then
  rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
  printf '%s\n' "$host_key" >/etc/ssh/ssh_host_ed25519_key
  (umask 022; printf '%s\n' "$host_public" >/etc/ssh/ssh_host_ed25519_key.pub)
  if [ -s /run/sshd.pid ]; then read -r pid </run/sshd.pid; kill -HUP "$pid" && done=1
  else systemctl try-restart ssh.service sshd.service 2>/dev/null && done=1; fi
fi
if [ -s /run/dropbear.pid ] && [ -f /etc/dropbear/dropbear_ed25519_host_key ]; then
  printf '%s\n' "$host_key" >/run/host-key
  rm -f /etc/dropbear/dropbear_*_host_key
  dropbearconvert openssh dropbear /run/host-key /etc/dropbear/dropbear_ed25519_host_key >/dev/null 2>&1
  rm -f /run/host-key
  pid=$(cat /run/dropbear.pid)
  eval "set -- $(tr '\0' '\n' <"/proc/$pid/cmdline" | sed "s/'/'\\\\''/g; s/^/'/; s/\$/'/" | tr '\n' ' ')"
  kill "$pid"
  while [ -e "/proc/$pid" ]; do usleep 1000 2>/dev/null || sleep 1; done
  umask 022
  "$@" </dev/null >/dev/null 2>&1 && done=1
fi
wait "$beside"
[ -n "$done" ] || { echo "its sshd is none that takes another host key" >&2; exit 1; }
"#;
