ARG BASE
FROM ${BASE}
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends busybox-static \
    && mkdir -p /image/bin /image/tmp /image/etc \
    && cp /bin/busybox /image/bin/ \
    && for name in $(/bin/busybox --list | grep -vx busybox); do ln -sf busybox "/image/bin/$name"; done

FROM scratch
COPY --from=0 /image /
ENV PATH=/bin
CMD ["sh"]
