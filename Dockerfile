# One image for every service; docker-compose.yml says which of them a container runs.

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
RUN python -m pip install --constraint constraints.txt hatchling
COPY pyproject.toml README.md LICENSE ./
COPY messaging messaging
COPY services services
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && python -m venv /app/.venv \
    && /app/.venv/bin/python -m pip install --constraint constraints.txt "$(echo /dist/messaging-*.whl)[services]"

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin app \
    # A new volume takes owner and mode from the folder that it covers: keys are refused when others may read them.
    && install --directory --owner=app --group=app --mode=0700 /keys
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 MESSAGING_KEYS=/keys HEALTH_PORT=8080
WORKDIR /app
USER 10001
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=5 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['HEALTH_PORT'] + '/healthz', timeout=2)"]
ENTRYPOINT ["messaging"]
CMD ["--help"]
