#!/usr/bin/env bash
# Two replicas of the server behind HAProxy, watched by Prometheus, all on free ports of the loopback: loads them, shows what every query of the Grafana
# dashboard and every rule answers, and restarts one replica under load without a failed call.
#
#   deploy/watch.sh [--seconds N] [--keep]
#
#   --seconds N   seconds of load before the queries are evaluated; default 30
#   --keep        leaves everything running afterwards, with a little load; Ctrl-C ends it
#
#   LONGEMBED_BUILD=DIR   uses the programs there, which are there already, instead of building build/release
#
# Debian's packages of prometheus and haproxy may start services of their own. They are left alone: other ports, and everything written is in build/watch.
# shellcheck source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

work=$root/build/watch
seconds=30 keep=no
declare -A pids=()

parse_arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --keep) keep=yes ;;
      --seconds)
        [[ ${2-} =~ ^[1-9][0-9]{0,4}$ ]] || fail "--seconds needs a whole number; see the head of deploy/watch.sh"
        seconds=$2
        shift
        ;;
      *) fail "unknown argument $1; usage: deploy/watch.sh [--seconds N] [--keep]" ;;
    esac
    shift
  done
}

# start NAME COMMAND...: in the background, with its output in build/watch/NAME.log.
start() {
  local name=$1
  shift
  "$@" >"$work/$name.log" 2>&1 &
  pids[$name]=$!
}

# finish NAME: waits for the end of what `start` started, and fails if its exit status is not clean.
finish() {
  local name=$1 pid=${pids[$1]} status=0
  unset "pids[$name]"
  wait "$pid" || status=$?
  # HAProxy ends by the signal itself: 130 and 143 are Ctrl-C and SIGTERM.
  [ "$status" = 0 ] || [[ "$name $status" =~ ^balancer\ 1(30|43)$ ]] || fail "$name ended with exit status $status: $(tail -n 1 "$work/$name.log")"
}

stop_all() {
  [ ${#pids[@]} = 0 ] || kill -TERM "${pids[@]}" 2>/dev/null || true
  wait
}

# wait_until SECONDS WHAT COMMAND...: until COMMAND succeeds; fails when a started program has ended.
wait_until() {
  local limit=$1 what=$2 name
  shift 2
  for _ in $(seq $((limit * 10))); do
    ! "$@" || return 0
    for name in "${!pids[@]}"; do
      [[ $name == load ]] || kill -0 "${pids[$name]}" 2>/dev/null || fail "$name has ended: $(tail -n 1 "$work/$name.log")"
    done
    sleep 0.1
  done
  fail "$what within $limit s; ${work#"$root"/}/*.log may say why"
}

choose_ports() {
  read -r grpc_1 grpc_2 health_1 health_2 metrics_1 metrics_2 balancer balancer_metrics prometheus < <("$venv/bin/python" -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(9)]
print(*(s.getsockname()[1] for s in sockets))')
}

write_configs() {
  local i grpc health metrics
  head -c 24 /dev/urandom | base64 >"$work/key"
  printf 'keys: [{name: watch, key: "%s"}]\n' "$(cat "$work/key")" >"$work/keys.yaml"
  for i in 1 2; do
    grpc=grpc_$i health=health_$i metrics=metrics_$i
    cat >"$work/replica-$i.yaml" <<YAML
listen: 127.0.0.1:${!grpc}
metrics_listen: 127.0.0.1:${!metrics}
health_listen: 127.0.0.1:${!health}
reflection: false
api_keys: keys.yaml
compute_threads: 1
drain: {delay: 5s, timeout: 30s}
models: [{path: "$model"}]
YAML
  done
  cat >"$work/prometheus.yaml" <<YAML
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ["$root/helm/longembed-server/files/alerts.yaml"]
scrape_configs:
  - job_name: longembed
    static_configs: [{targets: ["127.0.0.1:$metrics_1", "127.0.0.1:$metrics_2"]}]
YAML
}

start_replica() { start "replica-$1" "$binaries/longembed-server" --config "$work/replica-$1.yaml"; }

start_balancer() {
  LISTEN=127.0.0.1:$balancer METRICS_LISTEN=127.0.0.1:$balancer_metrics \
    REPLICA_1=127.0.0.1:$grpc_1 REPLICA_1_HEALTH_PORT=$health_1 REPLICA_2=127.0.0.1:$grpc_2 REPLICA_2_HEALTH_PORT=$health_2 \
    start balancer haproxy -f "$root/deploy/balancer/haproxy.cfg"
}

start_prometheus() {
  rm -rf "$work/data"
  start prometheus prometheus --config.file="$work/prometheus.yaml" --storage.tsdb.path="$work/data" --web.listen-address="127.0.0.1:$prometheus" --log.level=warn
}

# balancer_says REPLICA STATE: whether the health check found this state.
balancer_says() {
  curl -sf --max-time 5 "http://127.0.0.1:$balancer_metrics/metrics" |
    grep -qxF "haproxy_server_status{proxy=\"replicas\",server=\"replica-$1\",state=\"$2\"} 1"
}
both_are_up() { balancer_says 1 UP && balancer_says 2 UP; }
prometheus_is_ready() { curl -sf -o /dev/null --max-time 5 "http://127.0.0.1:$prometheus/-/ready"; }

# start_load SECONDS: calls through the balancer.
start_load() {
  start load "$venv/bin/python" "$root/deploy/balancer/load.py" --server "127.0.0.1:$balancer" --seconds "$1" --api-key-file "$work/key"
}

finish_load() {
  finish load
  say "  $(tail -n 1 "$work/load.log")"
}

# One stream through the balancer, with the command line client.
embed_corpus() {
  local i
  for i in $(seq 200); do printf '{"id": %d, "text": "Text %d of a corpus that is embedded in the background, through the same balancer."}\n' "$i" "$i"; done >"$work/corpus.jsonl"
  "$binaries/longembed" embed --server "127.0.0.1:$balancer" --api-key-file "$work/key" --priority bulk "$work/corpus.jsonl" >"$work/vectors.jsonl" ||
    fail "the corpus was not embedded"
  [ "$(wc -l <"$work/vectors.jsonl")" = 200 ] || fail "$(wc -l <"$work/vectors.jsonl") of 200 texts came back"
}

# Data for the panel on refused keys.
call_without_key() {
  ! "$binaries/longembed" models --server "127.0.0.1:$balancer" >"$work/refused.log" 2>&1 || fail "a call without an API key was answered"
}

restart_under_load() {
  local began
  say "restarting replica 2 under load"
  start_load 600
  sleep 2
  began=$EPOCHREALTIME
  kill -TERM "${pids[replica-2]}"
  wait_until 5 "the balancer did not notice that replica 2 drains" balancer_says 2 DOWN
  say "  the balancer noticed after $(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $began }") s that it drains"
  finish replica-2
  start_replica 2
  wait_until 60 "replica 2 did not come back" both_are_up
  say "  it shut down and was ready again after $(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $began }") s"
  sleep 2
  kill -TERM "${pids[load]}"
  finish_load
}

keep_running() {
  cat <<TEXT

They run until Ctrl-C:
  gRPC         127.0.0.1:$balancer through HAProxy; replicas 127.0.0.1:$grpc_1 and 127.0.0.1:$grpc_2
               build/release/longembed embed --server 127.0.0.1:$balancer --api-key-file build/watch/key --text hello
  Prometheus   http://127.0.0.1:$prometheus (rules, targets, queries)
  HAProxy      http://127.0.0.1:$balancer_metrics
  Grafana      point one at that Prometheus and import helm/longembed-server/files/dashboard.json
TEXT
  trap 'say "shutting down"' INT TERM
  "$venv/bin/python" "$root/deploy/balancer/load.py" --server "127.0.0.1:$balancer" --seconds 86400 --clients 1 --pause 0.2 --api-key-file "$work/key" || true
}

parse_arguments "$@"
install_packages prometheus haproxy curl
if [ -n "${LONGEMBED_BUILD-}" ]; then
  case $LONGEMBED_BUILD in /*) binaries=$LONGEMBED_BUILD ;; *) binaries=$root/$LONGEMBED_BUILD ;; esac
else
  set_up
  install_test_packages
  build release longembed-server longembed
  binaries=$root/build/release
fi
model=$(export_model e5-small-v2)
mkdir -p "$work"
choose_ports
write_configs
trap stop_all EXIT
say "starting two replicas, HAProxy and Prometheus (logs: ${work#"$root"/}/*.log)"
start_replica 1
start_replica 2
start_balancer
start_prometheus
wait_until 60 "the balancer did not find both replicas SERVING" both_are_up
wait_until 30 "Prometheus was not ready" prometheus_is_ready
say "loading them for $seconds s"
start_load "$seconds"
embed_corpus
call_without_key
finish_load
say "asking Prometheus for every panel and rule"
"$venv/bin/python" "$root/deploy/prometheus/evaluate.py" --prometheus "http://127.0.0.1:$prometheus" --interval 15s \
  --expect longembed_client_tokens_total longembed_authentication_failures_total ||
  fail "not every query has what it should; the table above says which"
restart_under_load
[ "$keep" = no ] || keep_running
kill -TERM "${pids[@]}" 2>/dev/null || true
for name in "${!pids[@]}"; do finish "$name"; done
say "everything has shut down"
