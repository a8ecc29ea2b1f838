# One controller replica.
#
#   docker build -t redis-registry .
#   docker run --rm -p 8000:8000 -e REDIS_REGISTRY_URL=redis://my-redis:6379/0 redis-registry
#
# Everything is set by REDIS_REGISTRY_* (docs/reference/settings.md). The other commands work
# as well: docker run --rm -e REDIS_REGISTRY_URL=... redis-registry list

FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/registry
COPY pyproject.toml README.md LICENSE ./
COPY requirements ./requirements
COPY redis_registry ./redis_registry
# The versions that the tests ran with.
RUN /opt/registry/bin/pip install --no-cache-dir --disable-pip-version-check \
    --constraint requirements/dev.txt ".[server]"

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin registry
COPY --from=build /opt/registry /opt/registry
ENV PATH=/opt/registry/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    REDIS_REGISTRY_HOST=0.0.0.0 \
    REDIS_REGISTRY_PORT=8000 \
    REDIS_REGISTRY_LOG_FORMAT=json
USER registry
EXPOSE 8000
# 503 while Redis is away; http.client, because urllib would ask a proxy for 127.0.0.1, too.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; link = http.client.HTTPConnection('127.0.0.1', int(os.environ['REDIS_REGISTRY_PORT']), timeout=4); link.request('GET', '/api/health'); sys.exit(link.getresponse().status != 200)"]
ENTRYPOINT ["redis-registry"]
CMD ["serve"]
