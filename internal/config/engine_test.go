package config_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/config"
)

func TestEngineIsLocalUnlessTheFileSaysOtherwise(t *testing.T) {
	t.Parallel()
	f, err := config.Parse("p.yaml", []byte(bare("")))
	if err != nil {
		t.Fatal(err)
	}
	if f.Engine.Shared() || f.Engine.Type != "local" {
		t.Errorf("engine of a file without one: %+v", f.Engine)
	}
}

func TestEngineOfWorkers(t *testing.T) {
	t.Parallel()
	f, err := config.Parse("acme.v2.yaml", []byte(bare("engine: {type: nats, url: '${env:NATS}', objects: 's3://b/state'}\n")))
	if err != nil {
		t.Fatal(err)
	}
	err = f.SettleEngine(t.Context(), config.Values{LookupEnv: func(name string) (string, bool) { return "nats://a:4222,nats://b:4222", name == "NATS" }})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Engine{Type: "nats", URL: "nats://a:4222,nats://b:4222", Stream: "acme_v2", Replicas: 1, Objects: "s3://b/state", Lease: 30 * time.Second, Range: 20000}
	if f.Engine != want {
		t.Errorf("engine:\n got %+v\nwant %+v", f.Engine, want)
	}
}

func TestEngineMistakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"a key of the other type": {"engine: {lease: 10s}", "engine.lease: it is for type: nats, and the type is local"},
		"no address":              {"engine: {type: nats, objects: 's3://b'}", "with type: nats it needs url"},
		"no bucket":               {"engine: {type: nats, url: 'nats://a'}", "with type: nats it needs objects"},
		"another scheme":          {"engine: {type: nats, url: 'http://a', objects: 's3://b'}", "expected addresses as in nats://"},
		"a password":              {"engine: {type: nats, url: 'nats://u:p@a', objects: 's3://b'}", "a password stands in the address"},
		"a stream with a dot":     {"engine: {type: nats, url: 'nats://a', objects: 's3://b', stream: a.b}", "can't name a stream"},
		"a lease too short":       {"engine: {type: nats, url: 'nats://a', objects: 's3://b', lease: 1s}", "engine.lease"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Parse("p.yaml", []byte(bare(c.text+"\n")))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// What one worker can't know of another's messages is refused, each at its
// place.
func TestCheckSharedRefusesWhatCountsAcross(t *testing.T) {
	t.Parallel()
	text := `
version: 1
engine: {type: nats, url: "nats://a", objects: "s3://b"}
custody: {path: c}
sources:
  - {name: a, plugin: imap, limit: 5}
  - {name: b, plugin: imap, after: {flag: '\Seen'}}
stages:
  - {name: few, limit: 10}
  - {name: each, limit: {messages: 10, per: mailbox}}
  - {name: once, dedupe: content}
sinks: [{name: s, plugin: eml}]
`
	f, err := config.Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	got := errors.Join(f.CheckShared()...).Error()
	for _, want := range []string{"stages[0].limit", "stages[2].dedupe", "sources[0].limit", "sources[1].after", "custody"} {
		if !strings.Contains(got, want+": ") {
			t.Errorf("%s isn't refused in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "stages[1]") {
		t.Errorf("a limit per mailbox is refused:\n%s", got)
	}
}

func TestSumTellsFilesAndTablesApart(t *testing.T) {
	t.Parallel()
	text := "version: 1\nsources: [{name: '${row:u}', plugin: imap, foreach: {csv: t.csv}}]\nsinks: [{name: b, plugin: eml}]\n"
	sum := func(text, table string) string {
		f, err := config.ParseWith("p.yaml", []byte(text), func(string) ([]byte, error) { return []byte(table), nil })
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Settle(context.Background(), config.Values{}); err != nil {
			t.Fatal(err)
		}
		return f.Sum
	}
	first := sum(text, "u\na\n")
	if first == "" || first != sum(text, "u\na\n") {
		t.Error("one file has two sums")
	}
	if first == sum(text, "u\nb\n") || first == sum(text+"\n", "u\na\n") {
		t.Error("two files have one sum")
	}
}
