#!/usr/bin/env bash
# Runs commands of this checkout in a bare Debian 12 without any additional packages, to show that the scripts install what they need.
#
#   tests/bare_root.sh FOLDER [COMMAND...]     default: deploy/quickstart.sh tests/run.sh; each is timed
#
# FOLDER is created with debootstrap if it does not exist. The FOLDER of an earlier run is reused as it is, with fresh sources, which gives warm
# times.
# Needs root and debootstrap. Mounts are made in a separate namespace and disappear with it, however the script ends. The bare system shares the
# machine's network, including loopback ports, and its package sources, proxies and certificate authorities.
set -euo pipefail

repository=$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
marker=.longembed-bare-root
suite=bookworm

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Prints the lines of sources.list that this machine's apt has for the suite.
host_sources() {
  # shellcheck disable=SC2016  # apt's own placeholders.
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
    awk -v suite="$suite" '$2 ~ "^" suite && !seen[$0]++ { print "deb", $0 }'
}

make_root() {
  local mirror
  mirror=$(host_sources | awk -v suite="$suite" '$3 == suite { print $2; exit }')
  [ -n "$mirror" ] || fail "this machine's apt has no source of $suite; run apt-get update, or add one"
  debootstrap --variant=minbase "$suite" "$folder" "$mirror"
  touch "$folder/$marker"
}

# Copies the machine's network settings: package sources and certificate authorities.
share_network() {
  local file
  cp /etc/resolv.conf /etc/hosts "$folder/etc/"
  host_sources >"$folder/etc/apt/sources.list"
  apt-config dump | grep '^Acquire::' >"$folder/etc/apt/apt.conf.d/90host"
  for file in etc/pip.conf root/.config/pip/pip.conf root/.cargo/config.toml root/.m2/settings.xml; do
    [ ! -f "/$file" ] || install -D -m 644 "/$file" "$folder/$file"
  done
  if [ -d /usr/local/share/ca-certificates ]; then
    cp -r /usr/local/share/ca-certificates "$folder/usr/local/share/"
  fi
}

# Copies the files of the working tree, committed or not, over a clone. Earlier build outputs are kept.
copy_sources() {
  [ -d "$folder/srv/longembed/.git" ] || git clone -q --no-hardlinks "$repository" "$folder/srv/longembed"
  git -C "$repository" ls-files -z --cached --others --exclude-standard |
    tar -C "$repository" --null --ignore-failed-read -T - -c | tar -C "$folder/srv/longembed" --no-same-owner -x
}

# in_root COMMAND: runs a command in an environment without anything of this machine except its proxies.
in_root() {
  local kept
  mapfile -t kept < <(env | grep -iE '^((https?|no)_proxy|PIP_(INDEX_URL|EXTRA_INDEX_URL)|CARGO_(HTTP|SOURCE|REGISTR)[A-Z_]*)=' || true)
  # shellcheck disable=SC2016  # The inner shell expands them.
  unshare --mount --pid --fork --kill-child bash -euc '
    mount -t proc proc "$1/proc"
    mount --rbind /sys "$1/sys"
    mount --rbind /dev "$1/dev"
    exec chroot "$1" env -i "${@:3}" PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root CI="${CI-}" bash -c "cd /srv/longembed && $2"' \
    in_root "$folder" "$1" "${kept[@]}" </dev/null
}

[ $# -gt 0 ] || fail "usage: tests/bare_root.sh FOLDER [COMMAND...]"
[ "$(id -u)" = 0 ] || fail "chroot needs root; run this with sudo"
command -v debootstrap >/dev/null || fail "debootstrap is missing; run apt-get install debootstrap"
folder=$(realpath -m "$1")
shift
[ $# -gt 0 ] || set -- deploy/quickstart.sh tests/run.sh
[ -e "$folder/$marker" ] || [ ! -e "$folder" ] || fail "$folder exists and is not a root that this script made; name another folder"

[ -e "$folder/$marker" ] || make_root
share_network
copy_sources
for command in "$@"; do
  printf '=== %s\n' "$command"
  started=$SECONDS status=0
  in_root "$command" || status=$?
  printf '=== %s: exit status %d after %d s\n' "$command" "$status" $((SECONDS - started))
  [ "$status" = 0 ] || exit "$status"
done
