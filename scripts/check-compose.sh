#!/bin/sh
# Validate docker-compose.yml with Docker Compose, where that is installed: `config` needs no engine.
set -eu

cd "$(dirname "$0")/.."
if docker compose version >/dev/null 2>&1; then
    docker compose --file docker-compose.yml config --quiet
elif command -v docker-compose >/dev/null 2>&1; then
    docker-compose --file docker-compose.yml config --quiet
else
    echo "docker-compose.yml was not checked: Docker Compose is not installed here"
fi
