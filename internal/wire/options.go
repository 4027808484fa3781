// Package wire carries the contract between the host and a plugin: it
// converts the types of pkg to those of proto/mailhaul/plugin/v1 and back,
// frames messages, and serves a plugin's side. Nothing above it sees a
// generated type. Package remote has the host's side.
package wire

import (
	"math"

	"github.com/mailhaul/pipeline/internal/arena"
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
)

// Options are what both ends of a connection agree on.
type Options struct {
	// Window is the most octets that one stream may hold which the other
	// side hasn't read, 0 for DefaultWindow. gRPC replenishes the window of
	// the connection whatever is read, so that this is the only bound (I5).
	Window int32
	// Memory is that of the connection; nil for memory that isn't shared.
	Memory *Memory
	// TLS says that credentials are set elsewhere.
	TLS bool
}

// DefaultWindow is the most that a stream's window needs.
const DefaultWindow = 8 << 20

// minWindow is a frame and a half: with less a frame would never cross whole.
const minWindow = MaxFrame + MaxFrame/2

// Window returns the window of each stream when lanes of them share memory
// octets.
func Window(memory int64, lanes int) int32 {
	return int32(max(minWindow, min(DefaultWindow, memory/int64(2*max(1, lanes)))))
}

// Places returns how many places of shared memory each side may fill, where
// streams have this window: twice as much as one of them holds.
func Places(window int32) int {
	return max(8, int(2*Options{Window: window}.window())/arena.Size)
}

func (o Options) window() int32 {
	if o.Window <= 0 {
		return DefaultWindow
	}
	return max(o.Window, minWindow)
}

func (o Options) memory() *Memory {
	if o.Memory == nil {
		return NewMemory(NewPool(), nil)
	}
	return o.Memory
}

// ServerOptions returns what the plugin's server is made with.
func ServerOptions(o Options) []grpc.ServerOption {
	memory := o.memory()
	out := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec(memory)),
		experimental.BufferPool(memory.pool),
		grpc.StaticStreamWindowSize(o.window()),
		grpc.StaticConnWindowSize(2 * DefaultWindow),
		grpc.MaxRecvMsgSize(maxReceive),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.ReadBufferSize(128 << 10),
		grpc.WriteBufferSize(128 << 10),
		grpc.MaxConcurrentStreams(math.MaxUint32),
	}
	if !o.TLS {
		out = append(out, grpc.Creds(newWide()))
	}
	return out
}

// DialOptions returns what the host's client is made with.
func DialOptions(o Options) []grpc.DialOption {
	memory := o.memory()
	out := []grpc.DialOption{
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(newCodec(memory)),
			grpc.MaxCallRecvMsgSize(maxReceive),
			grpc.MaxCallSendMsgSize(math.MaxInt32),
		),
		experimental.WithBufferPool(memory.pool),
		grpc.WithStaticStreamWindowSize(o.window()),
		grpc.WithStaticConnWindowSize(2 * DefaultWindow),
		grpc.WithReadBufferSize(128 << 10),
		grpc.WithWriteBufferSize(128 << 10),
		grpc.WithDisableRetry(),
	}
	if !o.TLS {
		out = append(out, grpc.WithTransportCredentials(newWide()))
	}
	return out
}
