// Package serve is the main program of a plugin: it shakes hands with the
// host, keeps stray prints off the protocol, and ends with the host.
package serve

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strconv"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/mailhaul/pipeline/internal/arena"
	"github.com/mailhaul/pipeline/internal/headroom"
	"github.com/mailhaul/pipeline/internal/profile"
	"github.com/mailhaul/pipeline/internal/wire"
	"google.golang.org/grpc"
)

// Main runs the plugin of author until the host ends it, or answers a person
// who started it by hand. It doesn't return. log must be the logger of Log.
func Main(author wire.Author, log *slog.Logger, invalid error) {
	if invalid != nil {
		fmt.Fprintf(os.Stderr, "plugin %s is built wrongly: %v\n", author.Name, invalid)
		os.Exit(1)
	}
	if os.Getenv(wire.CookieKey) != wire.CookieValue {
		if slices.Equal(os.Args[1:], []string{"serve", "--debug"}) {
			os.Exit(debug(author, log, os.Stdout, os.Stderr))
		}
		os.Exit(byHand(author.Description, os.Args[1:], os.Stdout, os.Stderr))
	}
	// The host decides when to stop: a Ctrl-C on the terminal isn't for us.
	signal.Ignore(os.Interrupt)
	if os.Getenv(wire.EnvWatch) != "" {
		go watch(os.Stdin)
	}
	room := headroom.New()
	end := func() { os.Exit(0) }
	if dir := os.Getenv(wire.EnvProfile); dir != "" {
		end = profiled(dir, author, log)
	}
	memory := wire.NewMemory(wire.NewPool(), shared(log))
	memory.Share() // the host made it
	server := wire.NewServer(author, log, memory, end)
	window, _ := strconv.ParseInt(os.Getenv(wire.EnvWindow), 10, 32) // 0, the default, when unset
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue},
		VersionedPlugins: map[int]plugin.PluginSet{
			wire.Protocol: {"mailhaul": &served{server: server}},
		},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, wire.ServerOptions(wire.Options{
				Window: int32(window), Memory: memory, TLS: len(opts) > 0, // go-plugin's only one
			})...)...)
		},
		Logger: hclog.NewNullLogger(),
	})
	room.Keep()
	end()
}

// shared maps the memory that the host shares; nil where it shares none. A
// plugin that can't map it serves all the same.
func shared(log *slog.Logger) *arena.Arena {
	value := os.Getenv(wire.EnvShared)
	if value == "" {
		return nil
	}
	_ = os.Unsetenv(wire.EnvShared) // it is nothing to a child of ours
	fd, err := strconv.Atoi(value)
	if err != nil {
		log.Warn("no memory is shared with the host", "error", fmt.Errorf("%s: %w", wire.EnvShared, err))
		return nil
	}
	a, err := arena.Open(fd)
	if err != nil {
		log.Warn("no memory is shared with the host", "error", err)
		return nil
	}
	return a
}

// profiled records where the time of the process goes, and returns what ends
// it in place of os.Exit. A plugin that can't record serves all the same.
func profiled(dir string, author wire.Author, log *slog.Logger) (end func()) {
	name := fmt.Sprintf("pipeline-%s-%s-%d", author.Kind, author.Name, os.Getpid())
	stop, err := profile.Start(dir, name)
	if err != nil {
		log.Warn("no profile is recorded", "error", err)
		return func() { os.Exit(0) }
	}
	return func() {
		if err := stop(); err != nil {
			log.Warn("the profile isn't whole", "error", err)
		}
		os.Exit(0)
	}
}

// Log returns the plugin's logger: lines of JSON on the standard error that
// the process was started with, which the host reads.
func Log() *slog.Logger {
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(os.Getenv(wire.EnvLogLevel))) // info when unset
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// watch ends the process when the host's end of stdin is closed, which the
// system does however the host ends.
func watch(stdin io.Reader) {
	_, _ = io.Copy(io.Discard, stdin)
	os.Exit(0)
}

// byHand answers a person, and returns the exit code.
func byHand(d wire.Description, args []string, out, errs io.Writer) int {
	executable := "pipeline-" + d.Kind.String() + "-" + d.Name
	if len(args) == 1 && args[0] == "describe" {
		text, err := describe(d)
		if err != nil {
			fmt.Fprintln(errs, err)
			return 1
		}
		fmt.Fprintln(out, text)
		return 0
	}
	fmt.Fprintf(errs, "This is %s %s, a %s plugin of Mailhaul: %s\n"+
		"It is started by pipeline, for a %s with \"plugin: %s\" in pipeline.yaml.\n"+
		"Put it beside pipeline or on PATH. \"%s describe\" prints what it can be configured with,\n"+
		"\"%s serve --debug\" lets a pipeline attach to it that you start elsewhere.\n",
		executable, d.Version, d.Kind, d.Summary, d.Kind, d.Name, executable, executable)
	return 2
}

func describe(d wire.Description) (string, error) {
	text, err := json.MarshalIndent(struct {
		Name         string          `json:"name"`
		Kind         string          `json:"kind"`
		Version      string          `json:"version"`
		Summary      string          `json:"summary,omitempty"`
		Protocol     int             `json:"protocol"`
		Provides     string          `json:"provides,omitempty"`
		Capabilities []string        `json:"capabilities,omitempty"`
		Schema       json.RawMessage `json:"config_schema"`
	}{d.Name, d.Kind.String(), d.Version, d.Summary, wire.Protocol, provides(d), d.Capabilities, d.Schema}, "", "  ")
	return string(text), err
}

func provides(d wire.Description) string {
	if d.Kind != wire.KindSource {
		return ""
	}
	return d.Provides.String()
}
