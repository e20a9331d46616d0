"""`python -m services.gateway`: serve HTTP on GATEWAY_HOST and GATEWAY_PORT until SIGTERM or Ctrl-C."""

import sys

import uvicorn

from messaging import MessagingError
from services.gateway.app import create_app
from services.gateway.service import gateway
from services.gateway.settings import GatewaySettings

# As `messaging run`: a mistake in code or settings.
_EXIT_CONFIGURATION = 2


def main() -> None:
    """Serve; an expected failure is one line on stderr and exit code 2."""
    try:
        _serve(GatewaySettings())
    except MessagingError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(_EXIT_CONFIGURATION)


def _serve(settings: GatewaySettings) -> None:
    failures: list[MessagingError] = []

    def stop(error: MessagingError) -> None:
        failures.append(error)
        server.should_exit = True

    app = create_app(gateway, settings, on_failure=stop)
    server = uvicorn.Server(uvicorn.Config(app, host=settings.host, port=settings.port))
    server.run()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    main()
