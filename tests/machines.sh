#!/usr/bin/env bash
# Three machines and a home computer on one network, without any hardware: each machine is a
# network namespace with a root folder of its own (its /usr is this machine's), on one bridge.
# `ssh`, `scp`, `sudo` and `systemctl` are small stand-ins; all else is the real thing. Everything
# is inside namespaces that end with this script: nothing stays behind, however it ends.
#
#   tests/machines.sh probe          can this machine do it? (needs root)
#   tests/machines.sh run FOLDER     runs FOLDER/home.sh on the home computer, in FOLDER/home
#
# For tests, home also has `cable out|in ADDRESS`, which drops all packets of a machine silently.
set -euo pipefail
addresses=(10.0.0.1 10.0.0.2 10.0.0.3)
home_address=10.0.0.9

inside() {
  unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private "$@"
}

case ${1-} in
  probe)
    [[ $(id -u) == 0 ]] && command -v ip >/dev/null &&
      inside bash -c 'mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip netns add probe &&
        ip link add probe0 type bridge && ip link add probe1 type veth peer name probe2' >/dev/null 2>&1
    exit
    ;;
  run)
    work=$(realpath -- "$2")
    export work
    if [[ -z ${chatty_machines_inside-} ]]; then
      export chatty_machines_inside=yes
      inside "$0" "$@"
      exit
    fi
    ;;
  *)
    echo "usage: tests/machines.sh probe | run FOLDER" >&2
    exit 2
    ;;
esac

stubs=$work/stubs
mkdir -p "$stubs" "$work/home" /run/netns
mount -t tmpfs none /run/netns

plug() { # NAME ADDRESS
  ip netns add "$1"
  ip link add "to-$1" type veth peer name eth0 netns "$1"
  ip link set "to-$1" master net up
  ip -n "$1" address add "$2/24" dev eth0
  ip -n "$1" link set eth0 up
  ip -n "$1" link set lo up
}

ip link add net type bridge
ip link set net up
plug home "$home_address"

for address in "${addresses[@]}"; do
  plug "$address" "$address"
  machine=$work/$address
  mkdir -p "$machine"/{usr,etc/systemd/system,proc,dev,tmp,root,run,stubs,var/lib,var/log}
  ln -s usr/bin usr/sbin usr/lib "$machine"
  [[ ! -e /lib64 ]] || ln -s usr/lib64 "$machine"
  mount --bind /usr "$machine/usr"
  mkdir -p "$work/local-$address/bin"
  mount --bind "$work/local-$address" "$machine/usr/local"
  mount --bind /proc "$machine/proc"
  mount --bind /dev "$machine/dev"
  mount --bind "$stubs" "$machine/stubs"
  echo 'root:x:0:0::/root:/bin/bash' >"$machine/etc/passwd"
  echo 'root:x:0:' >"$machine/etc/group"
  cp /etc/login.defs "$machine/etc"
  # As a careful administrator has it: nothing comes in that is not allowed by name.
  if command -v nft >/dev/null; then
    ip netns exec "$address" nft -f - <<'RULES'
table inet filter {
  chain input {
    type filter hook input priority 0; policy drop;
    iif lo accept
    meta l4proto { icmp, ipv6-icmp } accept
  }
}
RULES
  fi
done

cat >"$stubs/ssh" <<'STUB'
#!/usr/bin/env bash
# ssh USER@ADDRESS COMMAND…
set -euo pipefail
address=${1#*@}
shift
[[ -d $work/$address ]] || { echo "ssh: no machine $address" >&2; exit 255; }
exec ip netns exec "$address" chroot "$work/$address" /usr/bin/env -i \
  PATH=/stubs:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root address="$address" bash -c "$*"
STUB

cat >"$stubs/scp" <<'STUB'
#!/usr/bin/env bash
# scp [-r] FILE… USER@ADDRESS:PATH, or scp USER@ADDRESS:PATH FILE
set -euo pipefail
if [[ $# == 2 && $1 == *@*:/* ]]; then
  from=${1#*@}
  exec cp --no-preserve=ownership "$work/${from%%:*}${from#*:}" "$2"
fi
to=${*: -1}
address=${to#*@}
address=${address%%:*}
path=${to#*:}
[[ -d $work/$address && $path == /* ]] || { echo "scp: where is $to?" >&2; exit 1; }
exec cp --recursive --no-preserve=ownership "${@:1:$#-1}" "$work/$address$path"
STUB

cat >"$stubs/sudo" <<'STUB'
#!/usr/bin/env bash
exec "$@"
STUB

cat >"$stubs/systemctl" <<'STUB'
#!/usr/bin/env bash
# As much of systemctl as the documentation uses, with a unit's ExecStart and User.
set -euo pipefail
start() {
  local unit=/etc/systemd/system/$1.service user='' command='' key value
  while IFS='=' read -r key value; do
    case $key in
      ExecStart) command=$value ;;
      User) user=$value ;;
      '' | '#'* | '['*) ;;
      Description | After | Wants | Restart | RestartSec | TimeoutStopSec | LimitNOFILE | WantedBy) ;;
      *) echo "systemctl: this stand-in does not know $key=$value" >&2; exit 1 ;;
    esac
  done <"$unit"
  # shellcheck disable=SC2086  # a command line
  setsid setpriv --reuid "$user" --regid "$user" --clear-groups $command \
    </dev/null >>"/var/log/$1" 2>&1 &
  echo $! >"/run/$1.pid"
}
stop() {
  [[ -e /run/$1.pid ]] || return 0
  local pid
  pid=$(<"/run/$1.pid")
  kill -TERM "$pid" 2>/dev/null || true
  while [[ -e /proc/$pid ]] && ! grep -q '^State:.Z' "/proc/$pid/status"; do sleep 0.05; done
  rm -f "/run/$1.pid"
}
case "$*" in
  daemon-reload) ;;
  'enable --now '*) start "$3" ;;
  'start '*) start "$2" ;;
  'stop '*) stop "$2" ;;
  'restart '*) stop "$2"; start "$2" ;;
  *) echo "systemctl: this stand-in does not know '$*'" >&2; exit 1 ;;
esac
STUB

cat >"$stubs/journalctl" <<'STUB'
#!/usr/bin/env bash
# journalctl -u UNIT …
cat "/var/log/$2"
STUB

cat >"$stubs/cable" <<'STUB'
#!/usr/bin/env bash
# The machine stays on and hears nothing; nobody is told.
case $1 in
  out) exec nsenter --net=/proc/1/ns/net ip link set "to-$2" nomaster ;;
  in) exec nsenter --net=/proc/1/ns/net ip link set "to-$2" master net ;;
esac
STUB
chmod +x "$stubs"/*

cd "$work/home"
export HOME=$work/home XDG_STATE_HOME=$work/home/state PATH=$stubs:$PATH
unset CHATTY_CLUSTER
code=0
ip netns exec home bash -euo pipefail "$work/home.sh" </dev/null || code=$?
if ((code != 0)); then
  for address in "${addresses[@]}"; do
    echo "── $address" >&2
    tail -n 20 "$work/$address"/var/log/* >&2 2>/dev/null || true
  done
fi
exit "$code"
