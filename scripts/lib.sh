# Shared by the scripts beside it: where things are, how to speak, how to build the programs.
# Sourced, not run.
# shellcheck shell=bash

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -n ${CARGO_TARGET_DIR-} && $CARGO_TARGET_DIR != /* ]]; then
  export CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR
fi
target=${CARGO_TARGET_DIR:-$root/target}
programs=$target/release

say() { printf '%s\n' "$*" >&2; }

die() {
  say "${0##*/}: $*"
  exit 1
}

# A mistake in how the script was called.
usage_error() {
  say "${0##*/}: $*"
  say "${0##*/} --help says more"
  exit 2
}

# Makes sure of a program of the system: present, or installed where this user may, or one line
# that says how to get it.
need() { # PROGRAM PACKAGES WHAT-FOR
  command -v "$1" >/dev/null && return
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    say "installing $2 (for $3)"
    # shellcheck disable=SC2086  # several packages
    if { apt-get install -y -q $2 || { apt-get update -q && apt-get install -y -q $2; }; } \
      </dev/null >/dev/null 2>&1 && command -v "$1" >/dev/null; then
      return
    fi
  fi
  say "${0##*/}: '$1' is missing ($3); on Debian: apt-get install $2"
  return 1
}

# What rounds of faults in network namespaces are made with.
need_torture() {
  need ip iproute2 'network namespaces' && need tc iproute2 'narrow links' &&
    need iptables iptables 'cut and lossy links' && need faketime faketime 'wrong clocks' &&
    need setpriv util-linux 'processes that end with their parent' &&
    need unshare util-linux 'namespaces that end with their process'
}

need_rust() {
  if ! command -v cargo >/dev/null; then
    [[ -x ${CARGO_HOME:-${HOME-}/.cargo}/bin/cargo ]] || die \
      "cargo is missing (builds chatty); get Rust 1.95 or newer: curl -sSf https://sh.rustup.rs | sh -s -- -y"
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  fi
  need cc 'gcc libc6-dev' 'links chatty' || exit 1
}

# The programs that are there, old or new: what has to work on a bad day does not wait for a
# compiler. Only what is missing is built.
use_programs() {
  if [[ ! -x $programs/chatty || ! -x $programs/chatty-server ]]; then
    build_programs
  elif ! are_programs_new; then
    say "${0##*/}: the sources are newer than the programs used here; scripts/cluster up builds them"
  fi
}

are_programs_new() {
  local stamp=$programs/.chatty-built
  [[ -x $programs/chatty && -x $programs/chatty-server && -e $stamp ]] &&
    [[ -z $(find -H "$root/Cargo.toml" "$root/Cargo.lock" "$root/crates" -newer "$stamp" -print -quit) ]]
}

# Builds the two programs when they are missing or older than their sources. Speaks only on
# standard error, and only when there is something to build.
build_programs() {
  local stamp=$programs/.chatty-built
  ! are_programs_new || return 0
  need_rust
  [[ -x $programs/chatty-server ]] || say "building chatty; the first time takes a few minutes"
  mkdir -p "$programs"
  # The time before the build: what is edited meanwhile is newer.
  touch "$stamp.$$"
  if ! (cd "$root" && cargo build --release --locked -p chatty-server -p chatty-client) 1>&2; then
    rm -f "$stamp.$$"
    die "the build failed: the lines above say why"
  fi
  mv "$stamp.$$" "$stamp"
}
