package pluginhost_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/pkg/stage"
	"github.com/mailhaul/pipeline/test/leak"
)

// TestMain is also the plugins: the tests link this program under the names
// of plugins, and the host starts it.
func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); {
	case strings.HasPrefix(name, "pipeline-source-chatty"):
		fmt.Print("printed before Serve, without a newline") // where a handshake should be
		source.Serve(testSource("chatty"))
	case strings.HasPrefix(name, "pipeline-source-mute"):
		os.Exit(0)
	case strings.HasPrefix(name, "pipeline-source-"):
		source.Serve(testSource(strings.TrimPrefix(name, "pipeline-source-")))
	case strings.HasPrefix(name, "pipeline-sink-"):
		sink.Serve(testSink(strings.TrimPrefix(name, "pipeline-sink-")))
	case strings.HasPrefix(name, "pipeline-stage-"):
		stage.Serve(testStage(strings.TrimPrefix(name, "pipeline-stage-")))
	case strings.HasPrefix(name, "pipeline-store-"):
		fmt.Fprintln(os.Stderr, `{"level":"WARN","msg":"the bucket is slow"}`)
		fmt.Fprintln(os.Stderr, "a stray error")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case name == "host":
		hostMain()
	}
	os.Exit(leak.Main(m))
}

type sourceConfig struct {
	Size     int         `json:"size" doc:"octets of each body"`
	Password spec.Secret `json:"password" doc:"printed where it mustn't be"`
	Do       string      `json:"do" doc:"what to do wrong"`
}

func testSource(name string) source.Plugin[sourceConfig] {
	return source.Plugin[sourceConfig]{
		Name: name, Version: "1.0.0", Summary: "makes messages", Provides: message.NeedBody,
		Open: func(ctx context.Context, c sourceConfig, env source.Env) (source.Opened, error) {
			password, err := c.Password.Value(ctx)
			if err != nil {
				return source.Opened{}, err
			}
			switch c.Do {
			case "print":
				fmt.Println("a stray print")
				fmt.Fprintln(os.Stderr, "a stray error")
			case "leak":
				env.Log.Info("the password is "+password, "again", password)
				fmt.Println(password)
				return source.Opened{}, fault.New(fault.Auth, "LOGIN %s: no", password)
			case "panic elsewhere":
				go panic("out of luck")
				time.Sleep(time.Minute)
			case "exit":
				os.Exit(7)
			case "environment":
				return source.Opened{Source: made{}, Notes: os.Environ()}, nil
			case "folder":
				dir, err := os.Getwd()
				return source.Opened{Source: made{}, URL: dir}, err
			}
			return source.Opened{Source: made{c.Size}, Lanes: 2, URL: fmt.Sprint(os.Getpid())}, nil
		},
	}
}

// made is a source of any number of messages of size octets.
type made struct{ size int }

func (made) Mailboxes(context.Context) iter.Seq2[message.Mailbox, error] {
	return func(yield func(message.Mailbox, error) bool) {
		yield(message.Mailbox{Name: "INBOX", Selectable: true}, nil)
	}
}

func (made) List(context.Context, source.ListRequest) iter.Seq2[message.Summary, error] {
	return func(func(message.Summary, error) bool) {}
}

func (s made) Fetch(_ context.Context, r source.FetchRequest) iter.Seq2[source.Fetched, error] {
	return func(yield func(source.Fetched, error) bool) {
		for ids := range r.IDs {
			for _, id := range ids {
				body := message.NewBody(io.LimitReader(zeros{}, int64(s.size)), int64(s.size), nil)
				if !yield(source.Fetched{ID: id, Message: &message.Message{Summary: message.Summary{ID: id}, Body: body}}, nil) {
					return
				}
			}
		}
	}
}

func (made) Close() error { return nil }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type sinkConfig struct {
	Path string `json:"path" doc:"where to write"`
	Slow bool   `json:"slow" doc:"never finishes"`
}

func testSink(name string) sink.Plugin[sinkConfig] {
	return sink.Plugin[sinkConfig]{
		Name: name, Version: "1.0.0", Summary: "counts octets",
		Prepare: func(c sinkConfig) (sink.Prepared, error) {
			if c.Path == "" {
				return sink.Prepared{}, fault.New(fault.Config, "path is empty").WithKey("path")
			}
			if c.Path == "process" { // for the test that kills it
				c.Path = fmt.Sprint(os.Getpid())
			}
			return sink.Prepared{Target: c.Path, Lanes: 4, Needs: message.NeedBody}, nil
		},
		Open: func(_ context.Context, c sinkConfig, st sink.State) (sink.Sink, error) {
			return &counting{slow: c.Slow, checkpoint: st.Checkpoint}, nil
		},
	}
}

type counting struct {
	slow       bool
	checkpoint sink.Checkpoint
}

func (s *counting) Write(_ context.Context, m *message.Message) (sink.Receipt, error) {
	n, err := io.Copy(io.Discard, m.Body)
	if s.slow {
		time.Sleep(time.Hour)
	}
	return sink.Receipt{Path: m.ID.Mailbox, Octets: n}, err
}

func (s *counting) Flush(context.Context) (sink.Checkpoint, error) {
	return append(s.checkpoint, '+'), nil
}

func (*counting) Close() error { return nil }

func testStage(name string) stage.Plugin[struct{}] {
	return stage.Plugin[struct{}]{
		Name: name, Version: "1.0.0", Summary: "upper case",
		Prepare: func(struct{}) (stage.Spec, error) {
			return stage.Spec{Needs: message.NeedBody, Changes: true}, nil
		},
		Open: func(context.Context, struct{}, stage.Env) (stage.Stage, error) { return upper{}, nil },
	}
}

type upper struct{}

func (upper) Apply(ctx context.Context, m *message.Message) (stage.Verdict, error) {
	whole, err := m.Body.Whole(ctx)
	if err != nil {
		return 0, err
	}
	b, err := io.ReadAll(whole.Reader())
	m.Body = message.BodyOf([]byte(strings.ToUpper(string(b))))
	return stage.Keep, err
}

func (upper) Close() error { return nil }
