#!/bin/sh
# Generates internal/pluginpb from proto/. Needs protoc (Debian:
# protobuf-compiler); the Go plugins are tools of this repository, pinned in
# tools/go.mod. With a directory as argument the output goes there, so that CI
# can compare it with what is committed.
set -eu
cd "$(dirname "$0")/.."
out=${1:-internal/pluginpb}
bin=${PROTOC_GEN_BIN:-}
if [ -z "$bin" ]; then
	bin=$(mktemp -d)
	trap 'rm -rf "$bin"' EXIT
	go -C tools build -o "$bin/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
fi
mkdir -p "$out"
PATH="$bin:$PATH" protoc -I proto \
	--go_out="$out" --go_opt=module=github.com/mailhaul/pipeline/internal/pluginpb \
	--go-grpc_out="$out" --go-grpc_opt=module=github.com/mailhaul/pipeline/internal/pluginpb \
	proto/mailhaul/plugin/v1/*.proto
