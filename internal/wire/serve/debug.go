package serve

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/mailhaul/pipeline/internal/wire"
	"google.golang.org/grpc"
)

// debug serves a plugin that a person started, as in a debugger, for hosts
// that are told where it is. It goes on when a host ends, until it is
// interrupted, and returns the exit code.
func debug(author wire.Author, log *slog.Logger, out, errs io.Writer) int {
	dir, err := os.MkdirTemp("/tmp", "mailhaul-debug-") // 0700, and short: see sockaddr_un
	if err != nil {
		fmt.Fprintln(errs, "error:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket) //nolint:noctx // it listens until the process ends
	if err != nil {
		fmt.Fprintln(errs, "error:", err)
		return 1
	}
	executable := "pipeline-" + author.Kind.String() + "-" + author.Name
	reattach, err := json.Marshal(map[string]string{executable: socket})
	if err != nil {
		fmt.Fprintln(errs, "error:", err)
		return 1
	}
	fmt.Fprintf(out, "%s %s serves as process %d. Attach a debugger to it, and run the pipeline in another shell with\n\n"+
		"export %s='%s'\n\nCtrl-C ends it.\n", executable, author.Version, os.Getpid(), wire.EnvReattach, reattach)

	memory := wire.NewMemory(wire.NewPool(), nil)
	calls := newCalls()
	server := grpc.NewServer(append(wire.ServerOptions(wire.Options{Memory: memory}), calls.options()...)...)
	var served *wire.Server
	served = wire.NewServer(author, log, memory, func() { calls.clear(served.CloseAll) })
	served.Register(server)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		server.Stop()
	}()
	if err := server.Serve(&numbered{Listener: listener}); err != nil {
		fmt.Fprintln(errs, "error:", err)
		return 1
	}
	return 0
}
