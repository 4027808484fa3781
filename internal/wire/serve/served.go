package serve

import (
	"context"

	"github.com/hashicorp/go-plugin"
	"github.com/mailhaul/pipeline/internal/wire"
	"google.golang.org/grpc"
)

// served is go-plugin's view of a plugin.
type served struct {
	plugin.NetRPCUnsupportedPlugin
	server *wire.Server
}

// GRPCServer registers the plugin's services.
func (s *served) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	s.server.Register(g)
	return nil
}

// GRPCClient isn't used: the host takes the connection itself.
func (s *served) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}
