"""Tell whether a broker is of the wanted generation: `python scripts/check_generation.py amqp://… 4`.

Exit code 0 when it is; 2, with what to do, when there is none or it is another.
"""

import asyncio
import sys
from typing import Final

from messaging.cli.greeting import greeting_of
from messaging.errors import MessagingError

TIMEOUT_S: Final = 10.0


def problem_of(url: str, generation: int) -> str | None:
    """Return why the broker at this address will not do, or None."""
    if not url:
        return (
            f"MESSAGING_TEST_BROKER_{generation} is not set: give it the amqp:// address, with user and password, of a "
            f"RabbitMQ {generation}.x that may be filled with test queues"
        )
    try:
        greeting = asyncio.run(greeting_of(url, timeout_s=TIMEOUT_S))
    except MessagingError as error:
        return f"MESSAGING_TEST_BROKER_{generation}: {error}"
    if greeting.release is None or greeting.release[0] != generation:
        return f"MESSAGING_TEST_BROKER_{generation}: {greeting.product} {greeting.version} is no {generation}.x"
    return None


def main() -> int:
    """Print why it will not do; 0 when it does."""
    problem = problem_of(sys.argv[1], int(sys.argv[2]))
    if problem is not None:
        sys.stderr.write(f"{problem}\n")
    return 2 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
