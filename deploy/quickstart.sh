#!/usr/bin/env bash
# From a fresh Debian 12 to embeddings of real texts: sets up, starts the server on loopback, embeds, and shows what happened.
#
#   deploy/quickstart.sh [--serve] [--model MODEL]
#
#   --serve   leaves the server running in the foreground afterwards; Ctrl-C ends it in order
#   --model   a name, checkpoint folder or hub name that model/export takes; default e5-small-v2
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

serve=no model=e5-small-v2
while [ $# -gt 0 ]; do
  case $1 in
    --serve) serve=yes ;;
    --model) model=${2-} && shift || fail "--model needs a name; see the head of deploy/quickstart.sh" ;;
    *) fail "unknown argument $1; usage: deploy/quickstart.sh [--serve] [--model MODEL]" ;;
  esac
  shift
done
[ -n "$model" ] || fail "--model needs a name; see the head of deploy/quickstart.sh"

work=$root/build/quickstart
client=$root/build/release/longembed
server_pid=

stop_server() {
  [ -n "$server_pid" ] || return 0
  kill -TERM "$server_pid" 2>/dev/null || true
  wait "$server_pid" || fail "the server did not end in order; see build/quickstart/server.log"
  server_pid=
}

# The sample config, for the chosen model.
write_config() {
  sed "s|path: ../models/e5-small-v2 |path: $1 |" "$root/deploy/config.yaml" >"$work/config.yaml"
}

start_server() {
  say "starting the server (log: build/quickstart/server.log)"
  "$root/build/release/longembed-server" --config "$work/config.yaml" 2>"$work/server.log" &
  server_pid=$!
  trap stop_server EXIT
  for _ in $(seq 600); do
    grep -q 'serving gRPC' "$work/server.log" && return 0
    if ! kill -0 "$server_pid" 2>/dev/null; then
      server_pid=
      fail "the server did not start: $(tail -n 1 "$work/server.log")"
    fi
    sleep 0.1
  done
  fail "the server was not ready within a minute; see build/quickstart/server.log"
}

show_how_to_call() {
  cat <<'TEXT'

Call it yourself while it runs (deploy/quickstart.sh --serve keeps it running):
  build/release/longembed embed --prompt-name query --text "who may copy this program?"
  build/release/longembed models --output text
  grpcurl -plaintext -d '{"options": {"prompt_name": "query"}, "inputs": [{"text": "who may copy this program?"}]}' \
    127.0.0.1:50051 longembed.v1.EmbeddingService/Embed
Watch it: curl http://127.0.0.1:9464/metrics      (what each figure means: server/telemetry/README.md)
TEXT
}

set_up
build release
mkdir -p "$work"
model_folder=$(export_model "$model")
write_config "$model_folder"
start_server
say "embedding a few real texts"
"$venv/bin/python" "$root/deploy/show_embeddings.py" "$client"
printf '\nA few of its metrics now:\n'
curl -s http://127.0.0.1:9464/metrics | grep -E '^longembed_(requests_total|tokens_total|truncated_tokens_total|batch_tokens_sum|process_resident)' | sed 's/^/  /'
show_how_to_call
if [ "$serve" = yes ]; then
  say "serving on 127.0.0.1:50051; Ctrl-C ends it"
  trap stop_server INT TERM
  wait "$server_pid" || true
else
  stop_server
  say "the server has ended in order"
fi
