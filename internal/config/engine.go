package config

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// Engine says who does the work of a run (docs/scaling.md).
type Engine struct {
	Type        string        `json:"type" enum:"local,nats" default:"local" doc:"local: this process; nats: any number of \"pipeline worker\" processes, which get their tasks over NATS JetStream (docs/scaling.md)"`
	URL         string        `json:"url" doc:"of the NATS servers, with commas between; tls:// wants TLS; may hold references" example:"nats://nats-0:4222,nats://nats-1:4222"`
	Credentials string        `json:"credentials" doc:"path of the file to log in with at NATS: of nsc (.creds), or with the seed of an NKey; may hold references" example:"/run/secrets/mailhaul.creds"`
	Stream      string        `json:"stream" doc:"begins the names of the pipeline's streams and buckets in NATS: letters, digits, - and _; the pipeline's name when left out" example:"ACME"`
	Replicas    int           `json:"replicas" default:"1" min:"1" max:"5" doc:"nodes of the NATS cluster that keep each stream: 3 outlive the loss of one"`
	Objects     string        `json:"objects" doc:"place in a bucket for the ledgers of the tasks; may hold references" example:"s3://bucket/state?region=eu-central-1"`
	Lease       time.Duration `json:"lease" default:"30s" min:"2s" max:"1h" doc:"after how long without a sign of life a worker's task is given to another"`
	Range       int           `json:"range" default:"20000" min:"100" doc:"a mailbox with more messages is divided into tasks of so many UIDs"`
}

// Shared reports whether other processes do the work.
func (e *Engine) Shared() bool { return e.Type == "nats" }

var streamForm = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// engine checks what tags can't say of the engine.
func (b *builder) engine(f *File) {
	e := &f.Engine
	keys := []struct{ key, value, as string }{
		{"url", e.URL, "the address of NATS, as in nats://127.0.0.1:4222"},
		{"objects", e.Objects, "a place in a bucket, as in s3://bucket/state"},
	}
	if !e.Shared() {
		n := b.root.get("engine")
		for _, key := range []string{"url", "credentials", "stream", "replicas", "objects", "lease", "range"} {
			if n.get(key) != nil {
				b.at("engine."+key, "it is for type: nats, and the type is local")
			}
		}
		return
	}
	for _, k := range keys {
		if k.value == "" {
			b.at("engine", "with type: nats it needs %s: %s", k.key, k.as)
			return
		}
	}
	if e.Stream == "" {
		e.Stream = strings.ReplaceAll(f.Name, ".", "_")
	}
	if !streamForm.MatchString(e.Stream) {
		b.at("engine.stream", "%q can't name a stream: expected letters, digits, - and _", e.Stream)
	}
	if !strings.Contains(e.URL, "${") {
		if err := checkServers(e.URL); err != nil {
			b.at("engine.url", "%v", err)
		}
	}
}

func checkServers(urls string) error {
	for one := range strings.SplitSeq(urls, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return fmt.Errorf("expected addresses as in nats://127.0.0.1:4222, with commas between")
		}
		if _, password := u.User.Password(); password {
			return fmt.Errorf("a password stands in the address: name a file with credentials, or write it as a reference")
		}
	}
	return nil
}

// settleEngine evaluates the references of the engine.
func (f *File) settleEngine(settle func(key string, v Values) string, v Values) {
	for key, to := range map[string]*string{"url": &f.Engine.URL, "credentials": &f.Engine.Credentials, "objects": &f.Engine.Objects} {
		if *to != "" {
			*to = settle("engine."+key, v)
		}
	}
}

// SettleEngine evaluates the references of the engine, for a verb that needs
// no more of the file. The error is Problems.
func (f *File) SettleEngine(ctx context.Context, v Values) error {
	var problems Problems
	f.settleEngine(f.settler(ctx, &problems), v)
	if len(problems) > 0 {
		problems.Sort()
		return problems
	}
	return nil
}

// settler returns what evaluates the text of a key, and adds to problems what
// can't be.
func (f *File) settler(ctx context.Context, problems *Problems) func(key string, v Values) string {
	return func(key string, v Values) string {
		n, line, column, whole := f.root.locate(key)
		if !whole {
			return ""
		}
		s, err := evalText(ctx, n, v)
		if err != nil {
			*problems = append(*problems, Problem{f.Path, line, column, key, err.Error()})
		}
		return s
	}
}

// CheckShared returns what of the file can't be done by workers, which know
// nothing of each other's messages.
func (f *File) CheckShared() (errs []error) {
	refuse := func(key, text, hint string) {
		errs = append(errs, f.Place(key, fault.New(fault.Config, "%s", text).WithHint("%s", hint)))
	}
	const local = "or run with engine: {type: local}"
	for i, s := range f.Stages {
		switch {
		case s == nil:
		case s.Kind == stages.Dedupe:
			refuse(fmt.Sprintf("stages[%d].dedupe", i), "copies are looked for among all messages, and a worker has those of one mailbox only", "take the stage out, "+local)
		case s.Kind == stages.Limit && s.Limit.Per != "mailbox":
			refuse(fmt.Sprintf("stages[%d].limit", i), "the limit counts over all mailboxes of a source, and a worker has one of them only", "write per: mailbox, "+local)
		}
	}
	told := map[string]bool{}
	for i := range f.Sources {
		s := &f.Sources[i]
		if told[s.Key] {
			continue // once for all rows of a table
		}
		told[s.Key] = true
		if s.Limit > 0 {
			refuse(s.Key+".limit", "the limit counts over all mailboxes of the source, and a worker has one of them only", "take it out, "+local)
		}
		if s.After != nil {
			refuse(s.Key+".after", "workers change nothing on the server: a task may be run by two of them, one after the other", "take it out, and run with engine: {type: local} for that; what is exported stays so")
		}
	}
	if f.Custody != nil {
		refuse("custody", "the record of a run is made of the files of one machine, and workers write to buckets", "take it out, "+local)
	}
	return errs
}

// sum returns the hash of what a file was made of: its text and its tables.
func sum(parts [][]byte) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d\n", len(p))
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
