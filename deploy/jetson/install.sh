#!/usr/bin/env bash
# Install a plant's side of Fedspect on a Jetson: the node (Flower, no torch) and the worker (torch, TensorRT).
set -Eeuo pipefail
umask 022 # what is installed is for the plant's user to read

usage() {
    cat <<'TEXT'
usage: install.sh [--torch-wheel PATH | --cpu-torch] [options]

JetPack 5: the node gets a Python of its own (3.10 or newer, by uv), the worker runs on the system's Python 3.8.
JetPack 6: both run on the system's Python 3.10. Everything is looked at before anything is changed, a second
call changes only what differs, and a new version takes the old one's place in one step or not at all.

  --torch-wheel PATH        NVIDIA's torch for this JetPack (no registry has it)
  --torchvision-wheel PATH  a torchvision built for that torch
  --cpu-torch               the registry's torch instead: no GPU in training
  --jetpack 5|6             instead of what /etc/nv_tegra_release says; on a PC, to try this
  --node-python PATH        a Python 3.10 or newer instead of one that uv fetches (JetPack 5)
  --worker-python PATH      a Python 3.8 instead of the system's (JetPack 5)
  --fedspect WHEEL          instead of building one from the folder that this script is in
  --uv PATH                 a uv instead of fetching it with pip
  --wheels DIR              take every package from this folder; nothing is fetched
  --prefix DIR              where programs go            (/opt/fedspect)
  --home DIR                the plant's own folder       (/var/lib/fedspect/plant)
  --no-services             no system user, no units, no links in /usr/local/bin: needs no root with --prefix and --home
  --dry-run                 look and say what would be done
  --uninstall [--purge]     remove it; with --purge the plant's folder (its key!) too
exit codes: 0 done, 1 a check failed and nothing was changed, 2 not understood, 3 a step failed, the old version stays
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$here/../.." && pwd)
prefix=/opt/fedspect home=/var/lib/fedspect/plant account=fedspect
jetpack='' torch_wheel='' torchvision_wheel='' cpu_torch='' node_python='' worker_python='' fedspect='' uv='' wheels=''
services=yes dry='' uninstall='' purge=''
units=(fedspect-node.service fedspect-line.service)
template='fedspect-watch@.service' # an instance per watched folder
unit_folder=/etc/systemd/system

say() { printf '%s\n' "$*"; }
misused() {
    printf 'install.sh: %s (see --help)\n' "$*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --torch-wheel | --torchvision-wheel | --jetpack | --node-python | --worker-python | --fedspect | --uv | --wheels | --prefix | --home)
            [ $# -ge 2 ] || misused "$1 needs a value"
            name=${1#--}
            printf -v "${name//-/_}" '%s' "$2"
            shift
            ;;
        --cpu-torch) cpu_torch=yes ;;
        --no-services) services='' ;;
        --dry-run) dry=yes ;;
        --uninstall) uninstall=yes ;;
        --purge) purge=yes ;;
        -h | --help) usage && exit 0 ;;
        *) misused "what is $1?" ;;
    esac
    shift
done
[ -z "$torch_wheel" ] || [ -z "$cpu_torch" ] || misused "--torch-wheel or --cpu-torch, not both"
[ -z "$purge" ] || [ -n "$uninstall" ] || misused "--purge goes with --uninstall"
for each in "$prefix" "$home"; do
    case $each in
        *[!A-Za-z0-9/._-]*) misused "only letters, digits and / . _ - in folders: $each" ;;
        /*) ;;
        *) misused "a folder from the root on, not $each" ;;
    esac
done

# -- checks: all of them, then the verdict -------------------------------------------------------------------

failures=0
ok() { say "ok       $*"; }
warning() { say "warning  $*"; }
failure() { # what, remedy
    say "failure  $1"
    say "         -> $2"
    failures=$((failures + 1))
}
verdict() {
    [ "$failures" = 0 ] && return
    say "$failures of these stand in the way; nothing was changed"
    exit 1
}
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
newer() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; } # $1 <= $2

check_root() {
    if [ -z "$services" ]; then
        return
    elif [ "$(id -u)" != 0 ]; then
        failure "not root" "run it with sudo, or with --no-services and --prefix and --home of your own"
    elif [ ! -d /run/systemd/system ] && [ -z "$dry" ]; then
        failure "systemd does not run here" "use --no-services"
    fi
}

check_platform() {
    local machine glibc release
    machine=$(uname -m)
    if [ "$machine" = aarch64 ]; then ok "machine aarch64"; else warning "machine $machine: no Jetson; this is a trial"; fi
    glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)
    if newer 2.31 "${glibc:-0}"; then ok "glibc $glibc"; else failure "glibc ${glibc:-unknown}" "2.31 or newer (JetPack 5) is needed"; fi
    if [ -z "$jetpack" ] && [ -r /etc/nv_tegra_release ]; then
        release=$(sed -n 's/^# R\([0-9]*\).*/\1/p' /etc/nv_tegra_release)
        case $release in
            35) jetpack=5 ;;
            36) jetpack=6 ;;
            *) failure "L4T R${release:-?}" "JetPack 5 (R35) or 6 (R36) is needed" && return ;;
        esac
    fi
    case $jetpack in
        5 | 6) ok "JetPack $jetpack" ;;
        '') failure "no Jetson: there is no /etc/nv_tegra_release" "say which one to lay out: --jetpack 5 or --jetpack 6" ;;
        *) failure "JetPack $jetpack" "5 or 6" ;;
    esac
}

check_pythons() {
    local found
    if [ "$jetpack" = 6 ]; then
        node_python=${node_python:-$(command -v python3.10 || true)}
        worker_python=${worker_python:-$node_python}
    else
        worker_python=${worker_python:-$(command -v python3.8 || true)}
        for found in python3.10 python3.11 python3.12; do
            node_python=${node_python:-$(command -v "$found" || true)}
        done
    fi
    if [ -n "$node_python" ]; then
        found=$(version_of "$node_python")
        case $found in
            3.10 | 3.11 | 3.12) ok "node: Python $found at $node_python" ;;
            *) failure "node: $node_python is Python ${found:-(does not answer)}" "a Python 3.10, 3.11 or 3.12: --node-python PATH" ;;
        esac
    elif [ "$jetpack" = 6 ]; then
        failure "there is no python3.10" "name it: --node-python PATH"
    elif [ -n "$wheels" ]; then
        failure "there is no Python 3.10 or newer, and nothing may be fetched" "name one: --node-python PATH"
    else
        ok "node: Python 3.10, which uv fetches into $prefix/python"
    fi
    found=$([ -z "$worker_python" ] || version_of "$worker_python")
    local wanted=3.8
    [ "$jetpack" = 6 ] && wanted=3.10
    if [ "$found" = "$wanted" ] || { [ "$jetpack" = 6 ] && [ "$worker_python" = "$node_python" ] && [ -n "$found" ]; }; then
        ok "worker: Python $found at $worker_python"
    else
        failure "worker: ${worker_python:-no Python $wanted found} ${found:+is Python $found}" "JetPack $jetpack's own is $wanted: --worker-python PATH"
        return
    fi
    worker_tag=cp${found/./}
    if "$worker_python" -c 'import tensorrt' 2>/dev/null; then
        ok "TensorRT $("$worker_python" -c 'import tensorrt; print(tensorrt.__version__)') in that Python"
    else
        warning "no TensorRT in that Python: engines will be ONNX Runtime's, on the processor"
    fi
    "$worker_python" -c 'import venv, ensurepip' 2>/dev/null || [ -n "$uv" ] || command -v uv >/dev/null ||
        failure "that Python cannot make environments" "apt install python3-venv, or --uv PATH"
}

check_wheel() { # path, name
    [ -n "$1" ] || return 0
    local file=${1##*/}
    if [ ! -f "$1" ]; then
        failure "there is no file $1" "the path of a wheel of $2"
    elif case $file in "$2"-*.whl) false ;; esac; then
        failure "$file is no wheel of $2" "a file named $2-VERSION-$worker_tag-$worker_tag-linux_$(uname -m).whl"
    elif case $file in *-"$worker_tag"-*) false ;; esac; then
        failure "$file is for another Python" "one for $worker_tag: its name says so"
    elif case $file in *_"$(uname -m)".whl) false ;; esac; then
        failure "$file is for another machine" "one for $(uname -m): its name says so"
    else
        ok "$file"
    fi
}

check_rest() {
    local part free
    if [ -z "$torch_wheel$cpu_torch" ]; then
        failure "no torch for the worker" "NVIDIA's for this JetPack: --torch-wheel PATH, or --cpu-torch to train on the processor"
    fi
    check_wheel "$torch_wheel" torch
    if [ -n "$torch_wheel" ] && [ "0$(minor_of "$torch_wheel")" -lt 1 ]; then
        failure "${torch_wheel##*/} is no torch 2" "torch 2.1 or newer"
    fi
    check_wheel "$torchvision_wheel" torchvision
    [ -z "$fedspect" ] || [ -f "$fedspect" ] || failure "there is no file $fedspect" "a wheel of fedspect"
    [ -z "$wheels" ] || [ -d "$wheels" ] || failure "there is no folder $wheels" "a folder of wheels"
    [ -z "$uv" ] || [ -x "$uv" ] || failure "$uv is no program" "the path of uv"
    for part in constraints.txt constraints-worker-py38.txt pyproject.toml; do
        [ -f "$project/$part" ] || failure "$part is not beside this script" "run install.sh where it lies in the project"
    done
    part=$prefix
    while [ ! -d "$part" ]; do part=$(dirname "$part"); done
    if [ ! -w "$part" ] && [ "$(id -u)" != 0 ]; then
        failure "may not write to $part" "run it with sudo, or with another --prefix"
    fi
    free=$(df -Pk "$part" | awk 'NR == 2 { print int($4 / 1048576) }')
    if [ "$free" -ge 6 ]; then ok "$free GiB free at $part"; else failure "$free GiB free at $part" "6 are needed: the old version stays until the new one works"; fi
    if [ -e "$prefix" ] && [ ! -e "$prefix/.fedspect" ] && [ -n "$(ls -A "$prefix" 2>/dev/null)" ]; then
        failure "$prefix holds something else" "an empty or new folder: --prefix DIR"
    fi
}

# -- steps ---------------------------------------------------------------------------------------------------

run() {
    say "+ $*"
    [ -n "$dry" ] || "$@"
}
write() { # path, mode; content on standard input; whole or not at all
    say "+ write $1"
    if [ -n "$dry" ]; then
        cat >/dev/null
    else
        mkdir -p "$(dirname "$1")"
        cat >"$1.new"
        chmod "$2" "$1.new"
        mv "$1.new" "$1"
    fi
}
# As written for the usual places, with those that were asked for.
placed() { sed -e "s#/var/lib/fedspect/plant#$home#g" -e "s#/opt/fedspect#$prefix#g" "$1"; }

minor_of() { echo "${1##*/}" | sed -n 's/^torch-2\.\([0-9]*\)\..*/\1/p'; }

release_name() {
    {
        [ -z "$fedspect" ] || sha256sum <"$fedspect"
        (cd "$project" && find pyproject.toml constraints*.txt shared server client simulations -type f \
            ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum)
        for each in "$torch_wheel" "$torchvision_wheel"; do [ -z "$each" ] || sha256sum <"$each"; done
        say "$jetpack" "$node_python" "$worker_python" "$cpu_torch" "$prefix"
    } | sha256sum | cut -c 1-12
}

get_uv() {
    export UV_PYTHON_INSTALL_DIR=$prefix/python
    uv=${uv:-$(command -v uv || true)}
    [ -z "$uv" ] || return 0
    uv=$prefix/tools/bin/uv
    [ -x "$uv" ] && return
    run "$worker_python" -m venv "$prefix/tools"
    run "$prefix/tools/bin/python" -m pip install --quiet "${offline[@]}" uv
}

install_release() { # folder
    local release=$1 wheel=$fedspect interpreter=${node_python:-3.10} set
    run rm -rf "$release"
    run mkdir -p "$release"
    if [ -z "$wheel" ]; then
        run "$uv" build --quiet --wheel "${offline[@]}" --python "$interpreter" --out-dir "$release" "$project"
        wheel=$release/fedspect.whl
        [ -n "$dry" ] || wheel=$(echo "$release"/fedspect-*.whl)
    fi
    # The worker's torch may be NVIDIA's: it takes the place of every demand for a torch.
    local given=() constraints=$project/constraints-worker-py38.txt
    [ "$jetpack" = 6 ] && constraints=$project/constraints.txt
    if [ -n "$torch_wheel" ]; then
        grep -v -E '^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==' "$constraints" | write "$release/constraints.txt" 644
        constraints=$release/constraints.txt
        {
            say "torch @ file://$(realpath "$torch_wheel")"
            if [ -n "$torchvision_wheel" ]; then
                say "torchvision @ file://$(realpath "$torchvision_wheel")"
            else
                say "torchvision==0.$(($(minor_of "$torch_wheel") + 15)).*" # 0.16 goes with torch 2.1, 0.17 with 2.2, ...
            fi
        } | write "$release/overrides.txt" 644
        given=(--override "$release/overrides.txt")
    fi
    set=node
    [ "$jetpack" = 6 ] && set=node,worker
    local site=()
    [ "$jetpack" = 6 ] && site=(--system-site-packages)
    run "$uv" venv --quiet "${site[@]}" --python "$interpreter" "$release/node"
    if [ "$jetpack" = 6 ]; then
        run "$uv" pip install --quiet --compile-bytecode "${offline[@]}" --python "$release/node/bin/python" \
            --constraint "$constraints" "${given[@]}" "fedspect[$set] @ file://$wheel"
        run ln -sfn node "$release/worker"
    else
        run "$uv" pip install --quiet --compile-bytecode "${offline[@]}" --python "$release/node/bin/python" \
            --constraint "$project/constraints.txt" "fedspect[$set] @ file://$wheel"
        run "$uv" venv --quiet --system-site-packages --python "$worker_python" "$release/worker"
        run "$uv" pip install --quiet --compile-bytecode "${offline[@]}" --python "$release/worker/bin/python" \
            --constraint "$constraints" "${given[@]}" "fedspect[worker] @ file://$wheel"
    fi
    run "$release/node/bin/fedclient" --version
    run "$release/worker/bin/python" -c 'import sys, torch, torchvision.transforms.v2, numpy, grpc, onnxruntime, fedclient.worker
print("worker: Python %d.%d" % sys.version_info[:2], "torch", torch.__version__, "GPU" if torch.cuda.is_available() else "no GPU")'
    [ -n "$dry" ] || touch "$release/complete"
}

switch_to() { # folder
    run ln -sfn "releases/${1##*/}" "$prefix/current.new"
    run mv -T "$prefix/current.new" "$prefix/current"
    for each in "$prefix"/releases/*; do
        if [ -d "$each" ] && [ "$each" != "$1" ]; then run rm -rf "$each"; fi
    done
}

install_commands() {
    placed "$here/fedclient" | write "$prefix/bin/fedclient" 755
    placed "$here/fedspect-join" | write "$prefix/bin/fedspect-join" 755
}

install_services() {
    local group groups=() each
    if ! id "$account" >/dev/null 2>&1; then
        run useradd --system --user-group --home-dir "$home" --shell /usr/sbin/nologin "$account"
    fi
    for group in video render; do # the GPU's device files belong to them
        if getent group "$group" >/dev/null; then groups+=("$group"); fi
    done
    if [ ${#groups[@]} != 0 ]; then run usermod --append --groups "$(IFS=,; echo "${groups[*]}")" "$account"; fi
    run install --directory --owner "$account" --group "$account" --mode 0700 "$home"
    for each in "${units[@]}" "$template"; do placed "$here/$each" | write "$unit_folder/$each" 644; done
    placed "$here/logrotate.conf" | write /etc/logrotate.d/fedspect 644
    for each in fedclient fedspect-join; do run ln -sfn "$prefix/bin/$each" "/usr/local/bin/$each"; done
    run systemctl daemon-reload
    run systemctl try-restart "${units[@]}" "${template/@/@*}"
}

remove() {
    if [ ! -e "$prefix/.fedspect" ]; then
        failure "nothing of ours is installed in $prefix" "name the folder: --prefix DIR"
    fi
    check_root
    verdict
    local each
    if [ -n "$services" ]; then
        run systemctl disable --now "${units[@]}"
        run systemctl stop "${template/@/@*}"
        run systemctl disable "$template"
        for each in "${units[@]}" "$template"; do run rm -f "$unit_folder/$each"; done
        run rm -f /etc/logrotate.d/fedspect /usr/local/bin/fedclient /usr/local/bin/fedspect-join
        run systemctl daemon-reload
    fi
    run rm -rf "$prefix"
    if [ -z "$purge" ]; then
        say "removed; the plant's folder stays: $home"
    else
        run rm -rf "$home"
        say "removed, with the plant's folder and its key: it is for headquarters to revoke the plant, if it has not left"
    fi
}

# -- the whole -----------------------------------------------------------------------------------------------

if [ -n "$uninstall" ]; then
    remove
    exit 0
fi
worker_tag=cp38
check_root
check_platform
check_pythons
check_rest
verdict

trap 'say "a step failed; what ran before still does" >&2; exit 3' ERR
offline=()
[ -z "$wheels" ] || offline=(--no-index --find-links "$wheels")
release=$prefix/releases/$(release_name)
run mkdir -p "$prefix/releases"
[ -n "$dry" ] || touch "$prefix/.fedspect"
if [ -e "$release/complete" ] && [ "$(readlink "$prefix/current" || true)" = "releases/${release##*/}" ]; then
    say "this version is installed already: ${release##*/}"
else
    get_uv
    install_release "$release"
    switch_to "$release"
fi
install_commands
if [ -z "$services" ]; then run mkdir -p "$home"; else install_services; fi
if [ -n "$dry" ]; then
    say "nothing was changed"
    exit 0
fi
trap - ERR
say "installed ${release##*/}; what this device looks like:"
"$prefix/bin/fedclient" doctor --worker-python "$prefix/current/worker/bin/python" || true
say "next: $prefix/bin/fedspect-join TOKEN --data FOLDER_WITH_PICTURES"
