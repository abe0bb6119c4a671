#!/bin/bash
# Installs what building env86 and its images needs and this machine lacks: a C compiler as Rust's
# linker, make, and the tools that a minimal Debian may be without. Packages of the guest are not
# among them: images/debian/build unpacks those below target/.
#
#   images/deps.sh [COMMAND=PACKAGES...]     with more commands than those that every build needs
set -euo pipefail

say() { echo "images/deps.sh: $*" >&2; }
die() { say "error: $*"; exit 1; }

# command=package
needed=(cc=gcc make=make find=findutils awk=mawk tar=tar xargs=findutils sha256sum=coreutils "$@")
missing=()
for need in "${needed[@]}"; do
    read -ra packages <<< "${need#*=}"
    command -v "${need%=*}" > /dev/null || missing+=("${packages[@]}")
done
# Without its headers and start files a compiler links nothing.
echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2> /dev/null || missing+=(gcc libc6-dev)

if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get > /dev/null ||
        die "install these and run this again (there is no apt-get to do it): ${missing[*]}"
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo > /dev/null || die "as root, run: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get -q update || say "warning: not every package list could be read; going on with the others"
    # What is installed stays: a cross compiler would drive out gcc-multilib, say.
    "${as_root[@]}" apt-get -q install -y --no-remove --no-install-recommends "${missing[@]}" ||
        die "apt-get cannot install ${missing[*]}"
fi

command -v cargo > /dev/null || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH=$HOME/.cargo/bin:$PATH
command -v cargo > /dev/null || die "there is no cargo: install Rust (the stable toolchain) first"
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
have=$(rustc --version | cut -d ' ' -f 2)
[ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -n 1)" = "$wanted" ] ||
    die "Rust $have is too old, $wanted or later is needed: rustup update stable"
