// Package compat tests that what was built against the frozen contract v1 goes
// on working: a plugin's executable, and the numbers on the wire.
package compat

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
)

// frozen builds the plugin of the frozen contract, as a source and as a sink.
func frozen(t *testing.T) *pluginhost.Host {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "pipeline-source-frozen")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./frozenplugin")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if err := os.Link(path, filepath.Join(dir, "pipeline-sink-frozen")); err != nil {
		t.Fatal(err)
	}
	h, err := pluginhost.New(pluginhost.Options{Dirs: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(t.Context()); err != nil {
			t.Log(err)
		}
	})
	return h
}

// Today's host runs a plugin that was built when v1 was frozen.
func TestFrozenPlugin(t *testing.T) {
	t.Parallel()
	h := frozen(t)
	ctx, out := t.Context(), t.TempDir()
	for _, kind := range []pluginhost.Kind{pluginhost.Source, pluginhost.Sink} {
		d, err := h.Describe(ctx, kind, "frozen")
		if err != nil || d.Protocol != 1 || d.Version != "1.0.0" || len(d.Schema) == 0 {
			t.Fatalf("described as %+v, %v", d, err)
		}
	}
	spec := pluginhost.SessionSpec{Name: "old", Plugin: "frozen", Config: []byte(fmt.Sprintf(`{"path":"%s"}`, out))}
	prepared, err := h.Prepare(ctx, pluginhost.Sink, spec)
	if err != nil || prepared.Target != out || prepared.Lanes != 2 || prepared.Needs != message.NeedBody {
		t.Fatalf("prepared %+v, %v", prepared, err)
	}
	bad := spec
	bad.Config = []byte(`{}`)
	if _, err := h.Prepare(ctx, pluginhost.Sink, bad); !fault.Is(err, fault.Config) || fault.As(err).Key != "path" {
		t.Errorf("a config without path: %v", err)
	}

	from, err := h.OpenSource(ctx, spec, false)
	if err != nil {
		t.Fatal(err)
	}
	to, err := h.OpenSink(ctx, spec, sink.State{Pipeline: "p"}, false)
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range from.Source.Mailboxes(ctx) {
		if err != nil || m.Name != "INBOX" {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	var ids []message.ID
	for s, err := range from.Source.List(ctx, source.ListRequest{Mailbox: "INBOX", Needs: message.NeedSize, Skip: 0, State: func(message.MailboxState) {}}) {
		if err != nil || s.Size == 0 {
			t.Fatalf("%+v, %v", s, err)
		}
		ids = append(ids, s.ID)
	}
	ids = append(ids, message.ID{Mailbox: "INBOX", UIDValidity: 1, UID: 99})
	lane, err := to.Lane(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for f, err := range from.Source.Fetch(ctx, source.FetchRequest{Mailbox: "INBOX", Needs: message.NeedBody, IDs: slices.Chunk(ids, 2)}) {
		if err != nil {
			t.Fatal(err)
		}
		if f.ID.UID == 99 {
			if !fault.Is(f.Err, fault.Gone) {
				t.Errorf("one that isn't there: %v", f.Err)
			}
			continue
		}
		if f.Err != nil {
			t.Fatal(f.Err)
		}
		if err := lane.Put(ctx, f.Message, func(r sink.Receipt, err error) {
			if err != nil || r.Octets == 0 {
				t.Errorf("receipt %+v, %v", r, err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := lane.Close(); err != nil {
		t.Error(err)
	}
	cp, err := to.Flush(ctx)
	if err != nil || string(cp) != "1" {
		t.Errorf("checkpoint %q, %v", cp, err)
	}
	if err := to.Committed(ctx, cp); err != nil {
		t.Error(err)
	}
	for uid := 1; uid <= 3; uid++ {
		b, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("%d.eml", uid)))
		if err != nil || !bytes.HasSuffix(b, []byte("frozen\r\n")) || len(b) < uid*8000 {
			t.Errorf("message %d: %d octets, %v", uid, len(b), err)
		}
	}
	if err := from.Source.Close(); err != nil {
		t.Error(err)
	}
	if err := to.Close(ctx); err != nil && err != io.EOF {
		t.Error(err)
	}
}

// Everything in the frozen contract is in today's, with the same number and the
// same type: only additions pass.
func TestContractOnlyGrows(t *testing.T) {
	t.Parallel()
	then, now := elements(t, "v1"), elements(t, "../../proto")
	if len(then) < 100 {
		t.Fatalf("the frozen contract has %d elements", len(then))
	}
	for name, what := range then {
		if now[name] != what {
			t.Errorf("%s was %q when v1 was frozen, and is %q", name, what, now[name])
		}
	}
}

// elements returns all fields, enum values and calls of a contract, with what a
// peer must know of them.
func elements(t *testing.T, dir string) map[string]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "set")
	protos, err := filepath.Glob(filepath.Join(dir, "mailhaul/plugin/v1/*.proto"))
	if err != nil || len(protos) == 0 {
		t.Fatalf("no contract in %s: %v", dir, err)
	}
	if out, err := exec.CommandContext(t.Context(), "protoc", append([]string{"-I", dir, "-o", path}, protos...)...).CombinedOutput(); err != nil {
		t.Fatalf("protoc: apt-get install protobuf-compiler: %v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(b, &set); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range set.GetFile() {
		for _, m := range f.GetMessageType() {
			for _, field := range m.GetField() {
				out[m.GetName()+"."+field.GetName()] = strings.TrimSpace(fmt.Sprintf("%d %v %v %s", field.GetNumber(), field.GetType(), field.GetLabel(), field.GetTypeName()))
			}
		}
		for _, e := range f.GetEnumType() {
			for _, v := range e.GetValue() {
				out[e.GetName()+"."+v.GetName()] = fmt.Sprint(v.GetNumber())
			}
		}
		for _, s := range f.GetService() {
			for _, m := range s.GetMethod() {
				out[s.GetName()+"."+m.GetName()] = fmt.Sprintf("%s(%v) %s(%v)", m.GetInputType(), m.GetClientStreaming(), m.GetOutputType(), m.GetServerStreaming())
			}
		}
	}
	return out
}
