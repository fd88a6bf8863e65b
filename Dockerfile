# Apache Kafka as the main process, and all that the three programs need: they run in the same
# container, through docker exec, from /pipeline, where the user's own copy may be mounted.
FROM debian:bookworm-20250520-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Outside /pipeline, since a volume hides what is in it. Downloads trust Debian's certificates, so
# that a certificate added to the base image counts.
ENV PATH=/opt/venv/bin:$PATH \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt \
    XDG_CACHE_HOME=/opt/cache \
    PYTHONPATH=/opt/kafka \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
COPY requirements-s3.txt requirements-fits.txt /opt/
RUN python3 -m venv /opt/venv \
    && pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        -r /opt/requirements-s3.txt -r /opt/requirements-fits.txt
COPY embedded_kafka /opt/kafka/embedded_kafka
RUN python -c "import embedded_kafka; embedded_kafka.fetch_jars()" && chmod -R a+rX /opt/cache

# Kafka runs as this user unless told otherwise (docker run -u); its topics are anybody's to write.
RUN useradd --create-home pipeline && install -d -m 1777 /var/lib/kafka
COPY --chown=pipeline . /pipeline
RUN chown pipeline /pipeline
USER pipeline
WORKDIR /pipeline

EXPOSE 8000 9092
HEALTHCHECK --interval=5s --timeout=10s --start-period=30s \
    CMD ["python", "-c", "import kafka; kafka.KafkaAdminClient(bootstrap_servers='localhost:9092').close()"]
# -P: the broker that was built in, whatever is mounted over /pipeline.
CMD ["python", "-P", "-m", "embedded_kafka", "--listen", "0.0.0.0", "--directory", "/var/lib/kafka"]
