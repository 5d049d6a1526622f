# One image for workers, migrations, cron and all commands: `docker build -t notiflog .`
FROM python:3.13-slim AS build

WORKDIR /build
RUN python -m venv /opt/notiflog
# The pins first: a change of the code alone installs none of them again.
COPY requirements.txt ./
RUN /opt/notiflog/bin/pip install --no-cache-dir -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY worker worker
RUN /opt/notiflog/bin/pip install --no-cache-dir --no-deps . \
 && /opt/notiflog/bin/pip check

FROM python:3.13-slim

# Nothing is written to disk: run it with a read-only root file system.
ENV PATH=/opt/notiflog/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    RQ_CONFIG=notiflog.rqconfig \
    RQ_WORKER_CLASS=notiflog.drain.DrainWorker
COPY --from=build /opt/notiflog /opt/notiflog
USER 10001:10001
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s --retries=4 \
  CMD ["notiflog", "probe", "--max-age", "60"]
CMD ["rq", "worker", "notiflog"]
