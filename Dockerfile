# Apache Kafka as the main process, and all that the three programs need: they run in the same
# container, through docker exec, from /pipeline, where the user's own copy may be mounted.
FROM debian:bookworm-20250520-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Outside /pipeline, since a volume hides what is in it. Downloads trust Debian's certificates, so
# that a certificate added to the base image counts.
ENV PATH=/opt/.venv/bin:$PATH \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt \
    XDG_CACHE_HOME=/opt/cache \
    PYTHONPATH=/opt/kafka \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
COPY requirements.txt pyproject.toml uv.lock /opt/
COPY tools/in_venv.py /opt/tools/
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 \
    python3 /opt/tools/in_venv.py s3,fits -c pass
COPY embedded_kafka /opt/kafka/embedded_kafka
# Fetches Kafka's jars; what the first start leaves makes all others faster.
RUN python -c "import embedded_kafka, pathlib; embedded_kafka.start(pathlib.Path('/tmp/kafka')).stop()" \
    && rm -r /tmp/kafka && chmod -R a+rX /opt/cache

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
