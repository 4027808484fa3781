# The command with all our plugins, and nothing else: no shell, no package
# manager. It runs as nobody, on a read-only root, and needs three places:
#
#   /etc/mailhaul   the pipeline file and what it names (read-only)
#   /data           state and output, as the pipeline file says
#   /tmp            sockets of the plugins, and bodies that wait (a tmpfs will do)
#
#   docker build -t mailhaul .
#   docker run --rm --read-only --tmpfs /tmp -v ./etc:/etc/mailhaul:ro -v data:/data mailhaul run
FROM docker.io/library/golang:1.26-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates tzdata
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN .ci/image /image

FROM scratch
COPY --from=build /image/ /
ENV PATH=/usr/local/bin TMPDIR=/tmp HOME=/data
WORKDIR /data
USER 65532:65532
VOLUME /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/pipeline"]
CMD ["run", "--config", "/etc/mailhaul/pipeline.yaml"]
