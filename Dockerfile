# irisd and iris. Anything with Python 3.11+ and venv serves as a base (--build-arg BASE=...).
ARG BASE=python:3.11-slim
# Compiled (--build-arg COMPILED=1) takes a C compiler, which python:3.11 has: --build-arg BUILDER=python:3.11
ARG BUILDER=${BASE}

FROM ${BUILDER} AS build
ARG COMPILED=0
ENV HATCH_BUILD_HOOK_ENABLE_MYPYC=${COMPILED} PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY . .
RUN python3 -m venv /opt/irisd \
 && /opt/irisd/bin/pip install --no-cache-dir --disable-pip-version-check -q -c constraints.txt ./client .

FROM ${BASE}
LABEL org.opencontainers.image.title="irisd" \
      org.opencontainers.image.description="The Iris daemon: decentralized messaging by name" \
      org.opencontainers.image.version="0.8.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/irisd /opt/irisd
# A numeric user, so that a runtime can see it is not root. Its group is the one apps join to use the socket.
RUN mkdir -p /run/irisd /keys && chown 7511:7511 /run/irisd /keys && chmod 0755 /run/irisd && chmod 0700 /keys
ENV PATH=/opt/irisd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    IRISD_SOCKET=/run/irisd/irisd.sock \
    IRIS_URL=unix:///run/irisd/irisd.sock
USER 7511:7511
VOLUME /run/irisd
EXPOSE 7511
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["iris", "status", "--json"]
ENTRYPOINT ["irisd"]
CMD ["run"]
