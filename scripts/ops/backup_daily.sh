#!/usr/bin/env bash
# A backup of a compose installation: the database, Redis, and the configuration. For cron or a systemd timer, once a day,
# while everything runs. What is written half is never found under a final name.
#
#   BACKUP_DIR=/backups/agentrunner   where to
#   KEEP_DAYS=30                      how long
#   BACKUP_S3=s3://BUCKET/PREFIX      besides, one of `agentrunner backup` in this bucket, with the AWS_… of .env
#   PROJECT_DIR=…                     the folder of docker-compose.yml, when it is not this script's
#
# Contains secrets' hashes and all that agents were told: the files are the owner's alone. Restoring: docs/install.md.
set -euo pipefail
umask 077

target=${BACKUP_DIR:-/backups/agentrunner}
keep=${KEEP_DAYS:-30}
cd "${PROJECT_DIR:-$(dirname "${BASH_SOURCE[0]}")/../..}"

compose() {
  if docker compose version >/dev/null 2>&1; then
    docker compose "$@"
  else
    docker-compose "$@"
  fi
}

[[ $keep =~ ^[0-9]+$ ]] || {
  echo "backup_daily: KEEP_DAYS is a number of days, not $keep" >&2
  exit 2
}
[[ -f docker-compose.yml ]] || {
  echo "backup_daily: there is no docker-compose.yml in $PWD; set PROJECT_DIR" >&2
  exit 2
}

mkdir -p "$target"
exec 9>"$target/.lock"
flock --nonblock 9 || {
  echo "backup_daily: another one is under way" >&2
  exit 1
}
date=$(date +%Y%m%d_%H%M%S)
work=$(mktemp -d "$target/.new-XXXXXX")
trap 'rm -rf "$work"' EXIT

# shellcheck disable=SC2016 # the container's variables
compose exec -T postgres sh -c 'exec pg_dump --username "$POSTGRES_USER" "$POSTGRES_DB"' | gzip >"$work/postgres_$date.sql.gz"
# A dump that came to its end says so.
gzip -dc "$work/postgres_$date.sql.gz" | tail -n 20 | grep -q "PostgreSQL database dump complete"
# Copies of what the database has: a convenience.
if compose exec -T redis redis-cli --rdb /data/backup.rdb >/dev/null 2>&1; then
  docker cp --quiet agentrunner-redis:/data/backup.rdb "$work/redis_$date.rdb" 2>/dev/null ||
    docker cp agentrunner-redis:/data/backup.rdb "$work/redis_$date.rdb" >/dev/null
  compose exec -T redis rm -f /data/backup.rdb
fi
tar -czf "$work/configs_$date.tar.gz" config/
[[ ! -f .env ]] || cp .env "$work/env_$date"

mv "$work"/* "$target/"
find "$target" -maxdepth 1 -type f \( -name 'postgres_*.sql.gz' -o -name 'redis_*.rdb' -o -name 'configs_*.tar.gz' -o -name 'env_*' \) \
  -mtime "+$keep" -delete
if [[ -n ${BACKUP_S3:-} ]]; then
  compose exec -T state-manager agentrunner backup --output "$BACKUP_S3" --keep-days "$keep" --json
fi
echo "Backup completed: $date"
