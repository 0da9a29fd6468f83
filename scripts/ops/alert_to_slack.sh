#!/usr/bin/env bash
# Tells a Slack channel when health_check.sh finds something wrong, and when all is well again: once each. For cron, every
# minute or so. Rules about failures, queues and cost, with more receivers, are the program's own: docs/alerts.md.
#
#   SLACK_WEBHOOK_FILE=FILE    where the address of the webhook stands; or SLACK_WEBHOOK itself
#   ALERT_STATE=FILE           remembers what was told; data/.alerted when not set
#   and what health_check.sh reads
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=${ALERT_STATE:-$here/../../data/.alerted}
webhook=${SLACK_WEBHOOK:-}
[[ -z ${SLACK_WEBHOOK_FILE:-} ]] || webhook=$(<"$SLACK_WEBHOOK_FILE")
if [[ -z $webhook ]]; then
  echo "alert_to_slack: set SLACK_WEBHOOK_FILE or SLACK_WEBHOOK to the address of an incoming webhook" >&2
  exit 2
fi

# Text as it stands in JSON.
quoted() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  printf '"%s"' "${text//[$'\001'-$'\037']/ }"
}

tell() { # TEXT
  # By standard input: arguments can be seen by everybody on the machine.
  printf 'url = "%s"\nheader = "Content-Type: application/json"\ndata = %s\n' "$webhook" "$(quoted "{\"text\":$(quoted "$1")}")" |
    curl --silent --show-error --fail --max-time 20 --retry 3 --output /dev/null --config -
}

if found=$("$here/health_check.sh" --quiet); then
  if [[ -e $state ]]; then
    tell "✅ AgentRunner on $(hostname) is healthy again." && rm -f "$state"
  fi
elif [[ ! -e $state || $(<"$state") != "$found" ]]; then
  tell "⚠️ AgentRunner on $(hostname): health check failed!"$'\n'"$found" && printf '%s\n' "$found" >"$state"
fi
