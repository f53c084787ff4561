# Both stages stand on one base, so that what the first compiles runs in the second.
# docs/install.md says how to build for another architecture.
ARG BASE=docker.io/library/python:3.13-slim-trixie

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev
# pip stays outside of what is shipped.
RUN python3 -m venv /build/tools \
    && python3 -m venv --without-pip /opt/nodecache
WORKDIR /build/source
COPY pyproject.toml README.md LICENSE ./
COPY nodecache nodecache
RUN HATCH_BUILD_HOOK_ENABLE_MYPYC=true \
    /build/tools/bin/pip --python /opt/nodecache/bin/python install --no-cache-dir --no-compile '.[webhook]'
# Byte code not by date: copying may change dates, and the sources never change here.
RUN find /opt/nodecache -name '*.so' -exec strip --strip-unneeded {} + \
    && /opt/nodecache/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/nodecache/lib

FROM ${BASE}
# The base's pip goes for the sake of who might get in, not of the size.
RUN apt-get update \
    && apt-get install -y --no-install-recommends iptables nftables \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/cache/ldconfig/* /var/log/apt /var/log/*.log \
    && rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/site-packages/pip*
COPY --from=build /opt/nodecache /opt/nodecache
ENV PATH=/opt/nodecache/bin:$PATH
# The base has no byte code of the standard library. The root is read-only where this runs, so each
# start and each probe would compile it again: import everything once, and keep what that leaves.
RUN python -m nodecache -version \
    && python -c 'import importlib, pkgutil, nodecache; \
[importlib.import_module(module.name) \
 for module in pkgutil.walk_packages(nodecache.__path__, "nodecache.") \
 if not module.name.endswith("__main__")]' \
    && for name in node-cache node-local-dns-admission-controller; do \
        ln -s /opt/nodecache/bin/nodecache "/$name"; \
    done
ENV PYTHONDONTWRITEBYTECODE=1
ARG BASE
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="nodecache" \
    org.opencontainers.image.description="Caching DNS proxy for every Kubernetes node" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.url="${SOURCE}" \
    org.opencontainers.image.documentation="${SOURCE}/blob/${REVISION}/docs/install.md" \
    org.opencontainers.image.base.name="${BASE}"
# Root: capabilities of a container reach no other user. The webhook needs none: its manifest names
# another. Manifests of node-cache and of ACK's webhook find the commands that they name.
ENTRYPOINT ["/opt/nodecache/bin/nodecache"]
