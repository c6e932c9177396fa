#!/usr/bin/env bash
# From a fresh Debian 12 to embeddings of real texts: sets up, starts the server on loopback, embeds, and shows the results.
#
#   deploy/quickstart.sh [--serve] [--model MODEL]
#
#   --serve   leaves the server running in the foreground afterwards; Ctrl-C shuts it down
#   --model   a name, checkpoint folder, model directory or hub name that model/export takes; default e5-small-v2
#
# With LIBTORCH=DIR and --model of an exported model directory nothing of Python is installed. DEVICE: see deploy/setup.sh.
# shellcheck source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

work=$root/build/quickstart
client=$root/build/release/longembed
log=$work/server.log
metrics=http://127.0.0.1:9464/metrics
http=127.0.0.1:8080
serve=no model=e5-small-v2 server_pid=''

parse_arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --serve) serve=yes ;;
      --model)
        [ -n "${2-}" ] || fail "--model needs a name; see the head of deploy/quickstart.sh"
        model=$2
        shift
        ;;
      *) fail "unknown argument $1; usage: deploy/quickstart.sh [--serve] [--model MODEL]" ;;
    esac
    shift
  done
}

# Targets without LibTorch are compiled while it is downloaded.
compile_server() {
  if ! has_own_libtorch && ! has_libtorch; then
    configure release -D LONGEMBED_TORCH=OFF
    compile release longembed longembed_embed longembed_cpu_encoder
    # Over a fast line LibTorch is there by now. The remaining targets are then compiled together with those that need it, so that no core idles between the two.
    has_libtorch || compile release longembed_api longembed_http_api longembed_process
    until has_libtorch; do sleep 1; done
  fi
  build release longembed-server longembed
}

# Exports the model, after installing what the export needs. A model directory needs that only for LibTorch.
prepare_model() {
  [ -f "$model/longembed-model.yaml" ] && has_own_libtorch || install_exporter
  export_model "$model" >"$work/model"
}

# run_both COMMAND COMMAND: at the same time. When one fails, or this script is interrupted, the other one is ended with all that it started.
run_both() {
  local first second
  set -m  # A process group for each.
  "$1" &
  first=$!
  (
    trap '[ $? = 0 ] || kill -TERM -- "-$first" 2>/dev/null' EXIT
    "$2"
  ) &
  second=$!
  set +m
  trap 'kill -TERM -- "-$first" "-$second" 2>/dev/null; exit 130' INT TERM HUP
  wait "$first" || {
    kill -TERM -- "-$second" 2>/dev/null || true
    exit 1
  }
  wait "$second" || exit 1
  trap - INT TERM HUP
}

# Stops only the server that this script started.
stop_server() {
  local pid=$server_pid
  [ -n "$pid" ] || return 0
  server_pid=''
  kill -TERM "$pid" 2>/dev/null || true
  wait "$pid" || fail "the server ended with exit status $?; ${log#"$root"/} says why"
}

# The sample config, for the chosen model.
write_config() {
  local path="path: ../models/e5-small-v2 " escaped
  grep -qF "$path" "$root/deploy/config.yaml" || fail "deploy/config.yaml names another model; start it with build/release/longembed-server --config deploy/config.yaml"
  escaped=$(printf '%s' "$1" | sed 's/[\\&|]/\\&/g')
  sed "s|$path|path: \"$escaped\" |" "$root/deploy/config.yaml" >"$work/config.yaml"
}

port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

check_port_is_free() {
  if port_is_taken "$1"; then
    fail "port $1 of 127.0.0.1 is taken by another program (ss -ltnp names it); stop that, then run this again"
  fi
}

start_server() {
  check_port_is_free 50051
  check_port_is_free 9464
  # Many programs use 8080: then the server starts without HTTP.
  if port_is_taken 8080; then
    say "port 8080 of 127.0.0.1 is taken, so HTTP is left out"
    http=''
  fi
  say "starting the server (log: ${log#"$root"/})"
  : >"$log"
  trap stop_server EXIT
  LONGEMBED__HTTP_LISTEN=$http "$root/build/release/longembed-server" --config "$work/config.yaml" 2>"$log" &
  server_pid=$!
  wait_for_server
}

# A model with billions of weights loads for minutes, so there is no limit but the server's end.
wait_for_server() {
  local waits=0
  until grep -q 'serving gRPC' "$log"; do
    if ! kill -0 "$server_pid" 2>/dev/null; then
      server_pid=''
      fail "the server did not start: $(tail -n 1 "$log")"
    fi
    [ $((++waits % ${waits_between_reports:-300})) != 0 ] || say "the model is loading: $(tail -n 1 "$log")"
    sleep 0.1
  done
}

show_metrics() {
  local text
  text=$(curl -sSf --max-time 10 "$metrics") || fail "the metrics did not answer at $metrics; ${log#"$root"/} may say why"
  printf '\nTime of each step, from the metrics of the server:\n'
  awk -F '[{ ]' '
    /_duration_seconds_sum/ && !/Models|Explain/ { name = $1; sub(/_sum$/, "", name); seconds[name] += $NF }
    /_duration_seconds_count/ && !/Models|Explain/ { name = $1; sub(/_count$/, "", name); count[name] += $NF }
    function show(what, name) { if (count[name]) printf "  %-34s %8.1f ms on average, %d times\n", what, 1000 * seconds[name] / count[name], count[name] }
    END {
      show("a call, from arrival to answer", "longembed_request_duration_seconds")
      show("tokenizing the texts of a call", "longembed_tokenization_duration_seconds")
      show("a sequence in the queue", "longembed_queue_duration_seconds")
      show("encoding a batch", "longembed_inference_duration_seconds")
    }' <<<"$text"
  printf '\nSome of these metrics, as the server gives them (curl %s; explained in server/telemetry/README.md):\n' "$metrics"
  grep -E '^(longembed_(requests_total|tokens_total|truncated_tokens_total|batch_tokens_sum)|process_resident)' <<<"$text" | sed 's/^/  /'
}

# Commands that work with the served model, which may have another prompt than "query", or no dense vectors.
show_how_to_call() {
  local models text='who may copy this program?' flag='' options='' field='' request
  models=$("$client" models --output json)
  if [[ $models == *'"prompts":{'*'"query":'*'"input_types":'* ]]; then
    flag='--prompt-name query ' options='"options": {"prompt_name": "query"}, ' field=', "prompt_name": "query"'
  fi
  request="{$options\"inputs\": [{\"text\": \"$text\"}]}"
  cat <<TEXT

Call it yourself while it runs (deploy/quickstart.sh --serve keeps it running):
  build/release/longembed embed $flag--text "$text"
  build/release/longembed models --output text
  grpcurl -plaintext -d '$request' \\
    127.0.0.1:50051 longembed.v1.EmbeddingService/Embed
TEXT
  if [ -n "$http" ]; then
    if [[ $models == *'"outputs":["ONE_VECTOR"'* ]]; then
      printf "  curl http://%s/v1/embeddings -H 'Content-Type: application/json' -d '{\"input\": \"%s\"%s}'\n" "$http" "$text" "$field"
    fi
    printf '  A browser shows every route at http://%s/docs\n' "$http"
  fi
  if command -v grpcurl >/dev/null; then
    printf '\ngrpcurl is installed; by reflection it lists:\n'
    grpcurl -plaintext -max-time 10 127.0.0.1:50051 list longembed.v1.EmbeddingService | sed 's/^/  /'
  fi
}

serve_until_stopped() {
  local status=0
  say "serving on 127.0.0.1:50051; Ctrl-C ends it"
  trap 'say "shutting down"' INT TERM
  wait "$server_pid" || status=$?
  trap - INT TERM
  # Above 128 a signal ended the wait, not the server.
  if [ "$status" -le 128 ]; then
    server_pid=''
    [ "$status" = 0 ] || fail "the server ended with exit status $status; ${log#"$root"/} says why"
  fi
}

parse_arguments "$@"
check_system
install_packages "${debian_packages[@]}"
install_rust
mkdir -p "$work"
run_both compile_server prepare_model
write_config "$(cat "$work/model")"
start_server
say "embedding a few real texts"
python3 "$root/deploy/show_embeddings.py" "$client"
show_metrics
show_how_to_call
[ "$serve" = no ] || serve_until_stopped
stop_server
say "the server has shut down"
