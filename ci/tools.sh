# Sourced by the scripts of this folder; checks nothing itself. It goes to the root of the repository
# and says how a script gets a tool that stable Rust lacks, or skips aloud without it.
#
# Only CI (CI=true) as root installs packages, and there a tool that cannot be had is a failure. At
# home nothing is installed: a check that lacks a tool says `skipped: ...` and exits 0.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

host=$(rustc -vV | sed -n 's/^host: //p')

skip() {
    if [ "${CI:-}" = true ]; then
        echo "failed: $1" >&2
        exit 1
    fi
    echo "skipped: $1"
    exit 0
}

# Installs the Debian packages named, if this is CI and root; else does nothing.
debian_install() {
    [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    # One check at a time: apt-get does not wait for another one that updates its lists.
    (
        flock 9
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    ) 9>/tmp/mmu-notifier-apt.lock >/dev/null
}

# Makes sure that PROGRAM is there; the Debian packages that bring it follow it.
need() {
    local program=$1
    shift
    command -v "$program" >/dev/null || debian_install "$@"
    command -v "$program" >/dev/null || skip "no $program here (Debian: apt-get install $*)"
}

# Puts Debian's Rust 1.85 first in PATH: the oldest compiler that we support, and one that has the
# source of the standard library beside it, so that -Zbuild-std works.
use_debian_rust() {
    local version=1.85.0+dfsg3-1~deb12u3
    local packages="rustc-web=$version cargo-web=$version rust-web-src=$version
        libstd-rust-web-dev=$version libstd-rust-web-1.85=$version"
    # shellcheck disable=SC2086 # several words
    has_debian_rust || debian_install $packages
    # shellcheck disable=SC2086
    has_debian_rust || skip "no Rust 1.85 with library source in /usr (Debian 12: apt-get install $(echo $packages))"
    export PATH=/usr/bin:$PATH
    unset RUSTUP_TOOLCHAIN
}

has_debian_rust() {
    [ -f /usr/lib/rustlib/src/rust/library/std/Cargo.toml ] && [ -x /usr/bin/cargo ] &&
        [[ "$(/usr/bin/rustc --version 2>/dev/null)" == "rustc 1.85."* ]]
}
