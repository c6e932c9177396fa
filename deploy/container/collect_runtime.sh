#!/usr/bin/env bash
# Step of the Dockerfile: collects the files of the image.
#
#   collect_runtime.sh BUILD OUT       BUILD: a build folder of CMake (build/release); environment: DEVICE=cpu|cuda
#
# OUT/libtorch/ gets LibTorch's libraries, OUT/server/ all else: the two programs, the Debian libraries and the loader that they ask for, the loader's cache,
# and a few files of /etc. Only libraries that LibTorch loads by name at run time are listed by hand.
set -euo pipefail
export LC_ALL=C

build=$(realpath "$1")
out=$(realpath -m "$2")
device=${DEVICE:-cpu}
programs=("$build/longembed-server" "$build/longembed")
own=usr/local/lib/longembed

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

cached() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
torch_cpu=$(cached LONGEMBED_TORCH_CPU)
[ -f "$torch_cpu" ] || fail "$build/CMakeCache.txt does not say where LibTorch is"
torch_lib=$(dirname "$torch_cpu")

# Libraries that no program is linked with: the server opens libtorch_cuda.so, LibTorch the others when it first needs them: linear algebra, the compiler of
# kernels, and cuDNN's parts.
opened_at_run_time() {
  [ "$device" = cuda ] || return 0
  local nvidia=$torch_lib/../../nvidia found
  found=$(find "$torch_lib" "$nvidia" \( -name 'libtorch_cuda.so' -o -name 'libtorch_cuda_linalg.so' -o -name 'libcaffe2_nvrtc.so' \
    -o -name 'libnvrtc-builtins.so.*' -o -name 'libcudnn_*.so.*' \) -print 2>/dev/null)
  [[ $found == *libtorch_cuda.so* ]] || fail "DEVICE is cuda and $torch_lib has no libtorch_cuda.so"
  printf '%s\n' "$found"
}

# Every file that the loader maps for the given ones. libcuda.so.1 belongs to the driver: the container runtime brings it.
needed_by() {
  local listing missing
  listing=$(LD_LIBRARY_PATH=$torch_lib ldd "$@")
  missing=$(sed -n '/libcuda\.so\.1 /d; s/^\s*\(\S*\) => not found/\1/p' <<<"$listing" | sort -u)
  [ -z "$missing" ] || fail "not found: ${missing//$'\n'/ }"
  sed -nE 's/^\s*(\S+ => )?(\/\S+) \(0x.*/\2/p' <<<"$listing" | sort -u
}

# The package that owns a file. Debian 12's own records still say /lib for what lies in /usr/lib.
owner_of() {
  local file
  file=$(realpath "$1")
  { dpkg-query --search "$file" || dpkg-query --search "${file#/usr}"; } 2>/dev/null | head -n 1 | cut -d : -f 1
}

# Copies a library into the image's library folder, under the name that the loader asks for. Copies the loader itself to where every program looks for it: /lib64 on
# x86-64, /lib on arm64.
copy_debian_library() {
  local owner folder=${1%/*}
  owner=$(owner_of "$1") || fail "no Debian package owns $1"
  packages+=("$owner")
  case $1 in
    */ld-linux-*) install -p -m 755 "$1" "$out/server/usr${folder#/usr}/" ;;
    *) install -p -m 644 "$1" "$out/server/usr/lib/$(uname -m)-linux-gnu/${1##*/}" ;;
  esac
}

# The symbol table for debuggers and linkers is a fifth of LibTorch. NVIDIA's libraries have none, and may be passed on only as they are.
copy_own_library() {
  local copy=$out/libtorch/$own/${1##*/}
  install -p -m 644 "$1" "$copy"
  case ${1##*/} in libtorch* | libc10* | libcaffe2*) strip --strip-unneeded --preserve-dates "$copy" ;; esac
}

# Records a package for scanners, as distroless images do, and copies its license. A machine may have a package for other processors, too.
record_package() {
  local package=$1 own
  own=$package:$(dpkg --print-architecture)
  { dpkg-query --status "$own" 2>/dev/null || dpkg-query --status "$package"; } >"$out/server/var/lib/dpkg/status.d/$package"
  install -D -p -m 644 "/usr/share/doc/$package/copyright" "$out/server/usr/share/doc/$package/copyright"
}

record_libtorch() {
  local file
  for file in "$torch_lib"/../../torch-*.dist-info/licenses/{LICENSE,NOTICE} "$torch_lib"/../LICENSE; do
    [ ! -f "$file" ] || install -D -p -m 644 "$file" "$out/libtorch/usr/share/doc/libtorch/${file##*/}"
  done
}

make_folders() {
  local etc=$out/server/etc
  mkdir -p "$out/libtorch/$own" "$out/server"/{dev,proc,sys,models,usr/local/bin,usr/lib64,"usr/lib/$(uname -m)-linux-gnu",var/lib/dpkg/status.d} \
    "$etc"/{ld.so.conf.d,longembed,ssl/certs}
  ln -s usr/lib "$out/server/lib"
  ln -s usr/lib64 "$out/server/lib64"
}

write_etc() {
  local etc=$out/server/etc
  printf 'root:x:0:0:root:/:/nonexistent\nlongembed:x:10001:10001:longembed-server:/:/nonexistent\n' >"$etc/passwd"
  printf 'root:x:0:\nlongembed:x:10001:\n' >"$etc/group"
  printf 'hosts: files dns\n' >"$etc/nsswitch.conf"
  # When NVIDIA's container runtime sees debian_version, it puts the driver's libraries where Debian's are, and rewrites the loader's cache from these files.
  printf 'include /etc/ld.so.conf.d/*.conf\n' >"$etc/ld.so.conf"
  printf '/%s\n' "$own" "usr/lib/$(uname -m)-linux-gnu" >"$etc/ld.so.conf.d/longembed.conf"
  install -p -m 644 /etc/debian_version "$etc/debian_version"
  install -p -m 644 /usr/lib/os-release "$etc/os-release"
  # Root certificates for the command line client, which may call servers whose certificate is of a public authority.
  install -p -m 644 /etc/ssl/certs/ca-certificates.crt "$etc/ssl/certs/ca-certificates.crt"
}

# The loader's cache names files of both folders (libtorch and server), so it is written while they are together.
write_loader_cache() {
  mkdir -p "$out/server/usr/local/lib"
  mv "$out/libtorch/$own" "$out/server/$own"
  ldconfig -X -r "$out/server"
  mv "$out/server/$own" "$out/libtorch/$own"
  rmdir "$out/server/usr/local/lib"
}

[ ! -e "$out" ] || fail "$out exists; remove it, so that nothing old stays in the image"
# In variables first: a failure inside <(...) would go unseen.
opened=$(opened_at_run_time)
mapfile -t opened <<<"$opened"
[ -n "${opened[0]}" ] || opened=()
libraries=$(needed_by "${programs[@]}" "${opened[@]}")
make_folders
packages=(base-files ca-certificates)
for program in "${programs[@]}"; do
  install -p -m 755 "$program" "$out/server/usr/local/bin/"
  strip --strip-all "$out/server/usr/local/bin/${program##*/}"
done
while read -r library; do
  case $library in
    /lib/* | /lib64/* | /usr/lib/*) copy_debian_library "$library" ;;
    *) copy_own_library "$library" ;;
  esac
done <<<"$libraries"
for library in "${opened[@]}"; do
  [ -e "$out/libtorch/$own/${library##*/}" ] || copy_own_library "$library"
done
for package in $(printf '%s\n' "${packages[@]}" | sort -u); do record_package "$package"; done
record_libtorch
write_etc
write_loader_cache
du -sh --apparent-size "$out/libtorch" "$out/server"
