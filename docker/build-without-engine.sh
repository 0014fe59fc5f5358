#!/usr/bin/env bash
# Builds docker/Dockerfile.cpu for real where no Docker engine runs, and tries what was built.
#
#     sudo docker/build-without-engine.sh [flag of `buildah build` …]
#
# Needs: Linux, root, Debian's packages buildah, debootstrap, curl and python3-pip (any other source of the four will do),
# a Debian mirror, a Python package index, and 20 GB below /var/lib/containers and /var/tmp. No daemon, no image registry,
# no user namespace: the base is made by debootstrap, and the steps run in a chroot.
#
# Taken from the environment:
#     DEBIAN_MIRROR, DEBIAN_SECURITY_MIRROR   Debian's own if not set
#     http_proxy, https_proxy, no_proxy       as apt, debootstrap and pip read them
#     PIP_…, pip.conf                         pip's settings, for the build only; a directory or certificate that they name
#                                             has to be in the build too: --volume DIR:DIR:ro
#     IMAGE (tts-server:cpu), BASE_IMAGE (tts-server-base)
#     KEEP_BASE=1                             takes the base that is there already
#     MODEL                                   also starts this model's engine: a name of the catalog, which is fetched,
#                                             or a directory, with --volume DIR:DIR:ro
set -euo pipefail
cd "$(dirname "$0")/.."

image=${IMAGE:-tts-server:cpu}
base=${BASE_IMAGE:-tts-server-base}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}
suite=bookworm
isolation=(--isolation chroot)

say() { echo "build-without-engine: $*"; }
die() { echo "build-without-engine: $*" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || die "this needs Linux."
[ "$(id -u)" = 0 ] || die "this needs root: debootstrap makes devices, buildah mounts and changes its root."
for tool in buildah debootstrap curl python3; do
    command -v "$tool" >/dev/null || die "there is no $tool; on Debian: apt-get install buildah debootstrap curl python3-pip"
done

scratch=$(mktemp -d)
containers=()
cleanup() {
    local container
    for container in "${containers[@]}"; do buildah rm "$container" >/dev/null 2>&1 || true; done
    rm -rf "$scratch"
}
trap cleanup EXIT

make_base() {
    say "$suite by debootstrap from $mirror"
    local container root
    container=$(buildah from scratch)
    containers+=("$container")
    root=$(buildah mount "$container")
    debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$scratch/debootstrap.log" 2>&1 ||
        { tail -n 20 "$scratch/debootstrap.log" >&2; die "debootstrap failed."; }
    printf '%s\n' "deb $mirror $suite main" "deb $mirror $suite-updates main" "deb $security $suite-security main" \
        >"$root/etc/apt/sources.list"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc "$root"/usr/share/man
    buildah unmount "$container" >/dev/null
    buildah config --cmd bash "$container"
    buildah commit --quiet --format docker --rm "$container" "$base" >/dev/null
}

# pip's own view of its files and variables, as one file.
pip_settings() {
    python3 -m pip config list 2>/dev/null | python3 -c '
import ast, sys
found = {}
for line in sys.stdin:
    key, _, value = line.strip().partition("=")
    section, _, name = key.rpartition(".")
    found[section, name] = " ".join(ast.literal_eval(value).split())
print("[global]")
# The later win.
order = ("global", "install", ":env:")
settings = {name: value for wins in order for (section, name), value in found.items() if section == wins}
print("\n".join(f"{name} = {value}" for name, value in settings.items()))
'
}

build() {
    pip_settings >"$scratch/pip.conf"
    say "$image from docker/Dockerfile.cpu"
    buildah build "${isolation[@]}" --format docker --pull-never --layers --build-arg "BASE=localhost/$base" \
        --secret "id=pip,src=$scratch/pip.conf" --ignorefile .dockerignore --file docker/Dockerfile.cpu --tag "$image" \
        "$@" .
}

# What the image promises, read off the image.
of_image() { buildah inspect --type image --format "{{with .Docker.Config}}{{$1}}{{end}}" "$image"; }

inside() { buildah run "${isolation[@]}" "$container" -- "$@"; }

check_image() {
    local user tools
    user=$(of_image .User)
    [ "$user" = 10001:10001 ] || die "the image's user is $user."
    [ -n "$(of_image .Healthcheck.Test)" ] || die "the image has no health check."
    say "user $user, volumes $(of_image .Volumes), ports $(of_image .ExposedPorts), health $(of_image .Healthcheck.Test)"
    tools=$(inside sh -c 'for tool in gcc g++ cc c++ make ld as cmake ninja; do command -v $tool; done' || true)
    [ -z "$tools" ] || die "there are build tools in the image: $tools"
    say "runs as $(inside id), without gcc, g++, make and ld"
}

# serves NAME FLAG… starts the image's command, waits for the image's own health check, asks, and ends it.
serves() {
    local name=$1 port pid answer health status=0
    shift
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    health=$(buildah inspect --type image "$image" | python3 -c '
import json, sys
print(json.load(sys.stdin)["Docker"]["config"]["Healthcheck"]["Test"][-1])')
    buildah run "${isolation[@]}" --env "TTS_SERVER_PORT=$port" "${volumes[@]}" "$container" -- \
        sh -c 'echo $$ >/var/lib/tts-server/pid; exec tini -s -- tts-server serve "$@"' serve "$@" \
        >"$scratch/$name.log" 2>&1 &
    local runner=$!
    for _ in $(seq 900); do
        if buildah run "${isolation[@]}" --env "TTS_SERVER_PORT=$port" "$container" -- python -c "$health" 2>/dev/null
        then break; fi
        kill -0 "$runner" 2>/dev/null || { tail -n 30 "$scratch/$name.log" >&2; die "the server ended."; }
        sleep 1
    done
    curl --fail --silent --show-error --output /dev/null "http://127.0.0.1:$port/health"
    answer=$(curl --fail --silent --show-error --max-time 300 "http://127.0.0.1:$port/v1/chat/completions" \
        --header 'content-type: application/json' --data '{"model": "'"$(served "$port")"'", "max_tokens": 24,
            "messages": [{"role": "user", "content": "What is 17 * 23?"}],
            "tts": {"strategy": "self_consistency", "n": 4}}')
    say "$name: $(python3 -c '
import json, sys
told = json.loads(sys.argv[1])
print(told["model"], "answered", repr(told["choices"][0]["message"]["content"][:60]), told["usage"]["completion_tokens"],
      "tokens,", told["tts"]["samples"], "samples")' "$answer")"
    pid=$(inside cat /var/lib/tts-server/pid)
    kill -TERM "$pid"
    wait "$runner" || status=$?
    [ "$status" = 0 ] || { tail -n 30 "$scratch/$name.log" >&2; die "$name: status $status after SIGTERM."; }
    say "$name: ended with status 0 after SIGTERM"
}

served() {
    curl --fail --silent "http://127.0.0.1:$1/v1/models" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["data"][0]["id"])'
}

[ "${KEEP_BASE:-}" = 1 ] && buildah inspect --type image "$base" >/dev/null 2>&1 || make_base
build "$@"

volumes=()
while [ $# -gt 0 ]; do
    case $1 in
        --volume | -v) volumes+=(--volume "$2"); shift ;;
        --volume=*) volumes+=("$1") ;;
    esac
    shift
done
container=$(buildah from --pull-never "$image")
containers+=("$container")
check_image
serves fake --engine fake
[ -z "${MODEL:-}" ] || serves real --model "$MODEL"
say "done: $image, $(buildah images --format '{{.Size}}' "$image")"
