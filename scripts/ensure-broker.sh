#!/bin/sh
# Make sure that a real RabbitMQ can be had: scripts/ensure-broker.sh [--optional]
# Root on Debian gets rabbitmq-server installed. When there is no way, this fails and says what to do;
# with --optional it says so and succeeds.
set -eu

cd "$(dirname "$0")/.."
optional=${1:-}

is_installed() {
    command -v erl >/dev/null 2>&1 || return 1
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || [ -x /usr/lib64/rabbitmq/bin/rabbitmq-server ] ||
        command -v rabbitmq-server >/dev/null 2>&1
}

# The tests stop and kill their broker, so a private node of an installed server it must be. Only the demo can use one
# that runs elsewhere.
if is_installed; then
    exit 0
fi
if [ "$optional" = --optional ] && [ -n "${MESSAGING_BROKER_URL:-}" ]; then
    exit 0
fi
if [ "$optional" = --optional ] && command -v docker >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
    exit 0
fi
if scripts/apt-install.sh rabbitmq-server; then
    exit 0
fi
if [ "$optional" = --optional ]; then
    echo "Without RabbitMQ the demo uses the embedded broker, in one process."
    exit 0
fi
echo "The tests need a real RabbitMQ, which they start and stop themselves, and never skip for want of one." >&2
echo "Install rabbitmq-server (Debian: apt-get install rabbitmq-server), or use 'make test-fast' meanwhile." >&2
exit 1
