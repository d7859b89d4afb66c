#!/bin/sh
# Runs a command confined, by JSON-RPC with Stockade's daemon: socat carries the lines, jq writes and reads them.
#
#   examples/exec.sh [-p POLICY] COMMAND [ARGUMENT]...
#
# Text of the command's output is printed as it comes; the exit status is the command's. Arguments and output that aren't text are
# left to clients in languages that have bytes: jq would change them.
set -eu

policy=default
if [ "${1:-}" = -p ]; then policy=$2; shift 2; fi
socket=${STOCKADE_SOCKET:-${XDG_RUNTIME_DIR:-/run}/stockade/stockade.sock}

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkfifo "$place/in" "$place/out"
socat - "UNIX-CONNECT:$socket" <"$place/in" >"$place/out" &
# Open until the end: a connection that is half closed takes its runs with it.
exec 3>"$place/in" 4<"$place/out"

jq -nc '{jsonrpc: "2.0", id: 1, method: "initialize", params: {clientInfo: {name: "exec.sh"}}}' >&3
jq -nc --arg policy "$policy" --arg workspace "$(pwd -P)" --arg path "$PATH" '{
    jsonrpc: "2.0", id: 2, method: "exec",
    params: {argv: $ARGS.positional, policy: $policy, workspace: $workspace, env: {PATH: $path}}
}' --args -- "$@" >&3

status=125
while IFS= read -r message <&4; do
    case $(printf '%s\n' "$message" | jq -r '.method // (if .error then "error" else "answer" end)') in
    run/output)
        text='.params.data | if type == "object" then .base64 | @base64d else . end'
        if printf '%s\n' "$message" | jq -e '.params.stream == "stderr"' >/dev/null; then
            printf '%s\n' "$message" | jq -j "$text" >&2
        else
            printf '%s\n' "$message" | jq -j "$text"
        fi
        ;;
    run/exited)
        status=$(printf '%s\n' "$message" | jq '.params.outcome | .code // (.signal // empty | 128 + .) // 125')
        break
        ;;
    error)
        printf '%s\n' "$message" | jq -r '"exec.sh: \(.error.message)"' >&2
        break
        ;;
    esac
done
exec 3>&-
exit "$status"
