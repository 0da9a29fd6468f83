#!/usr/bin/env bash
# Asks each service of this machine whether it is alive and can work. Ends with 0 when all are, else with 1: for cron, a
# load balancer, or a person.
#
#   scripts/ops/health_check.sh [--quiet]
#
#   AGENTRUNNER_HOST=localhost     the machine
#   AGENTRUNNER_SCHEME=http        https with ENABLE_TLS=true
#   AGENTRUNNER_CA=FILE            the authority of its certificate, as PEM
#   STATE_MANAGER_PORT=8001, …     ports, as in .env
set -euo pipefail

host=${AGENTRUNNER_HOST:-localhost}
scheme=${AGENTRUNNER_SCHEME:-http}
services=(
  "${STATE_MANAGER_PORT:-8001}:StateManager"
  "${CONFIG_SERVICE_PORT:-8002}:ConfigService"
  "${ORCHESTRATOR_PORT:-8003}:Orchestrator"
  "${SCHEDULER_SERVICE_PORT:-8004}:Scheduler"
  "${SLACK_GATEWAY_PORT:-8005}:SlackGateway"
)
curl_options=(--silent --max-time 5)
[[ -z ${AGENTRUNNER_CA:-} ]] || curl_options+=(--cacert "$AGENTRUNNER_CA")
quiet=${1:-}

say() { [[ $quiet == --quiet ]] || printf '%s\n' "$*"; }

say "=== Service Health Check ==="
ill=0
for service in "${services[@]}"; do
  port=${service%%:*}
  name=${service##*:}
  ready=$(curl "${curl_options[@]}" "$scheme://$host:$port/health/ready" || true)
  if [[ $ready == '{"status":"ready"'* ]]; then
    say "✓ $name (port $port): healthy"
    continue
  fi
  ill=$((ill + 1))
  # What fails, if it says so.
  why=$(sed -n 's/.*"failing":\["\(.*\)"\].*/: \1/p' <<<"$ready")
  printf '✗ %s (port %s): %s%s\n' "$name" "$port" "$([[ -n $ready ]] && echo 'NOT READY' || echo UNHEALTHY)" "$why"
done

if ((ill)); then
  printf '%s of %s services are unhealthy!\n' "$ill" "${#services[@]}"
  exit 1
fi
say "All services healthy!"
