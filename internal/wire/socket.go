package wire

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// socketBuffer is how many octets the system may hold of what one side has
// written and the other hasn't read: a few frames. With the usual 208 KiB less
// than one fits, so that the two ends wake each other several times for each;
// exports of large messages then take a fifth more CPU. Only what is on its way
// takes memory.
const socketBuffer = 1 << 20

// wide are the credentials of a connection without any, which is where gRPC
// shows the connection: they make its buffer larger. Whether both ends have
// them makes no difference to what is on the wire.
type wide struct {
	credentials.TransportCredentials
}

func newWide() credentials.TransportCredentials { return wide{insecure.NewCredentials()} }

// ClientHandshake implements credentials.TransportCredentials.
func (w wide) ClientHandshake(ctx context.Context, authority string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	widen(c)
	return w.TransportCredentials.ClientHandshake(ctx, authority, c)
}

// ServerHandshake implements credentials.TransportCredentials.
func (w wide) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	widen(c)
	return w.TransportCredentials.ServerHandshake(c)
}

// Clone implements credentials.TransportCredentials.
func (w wide) Clone() credentials.TransportCredentials { return wide{w.TransportCredentials.Clone()} }

// widen asks for the larger buffer. A system that refuses it, or gives less,
// costs time and nothing else.
func widen(c net.Conn) {
	if u, ok := c.(*net.UnixConn); ok {
		_ = u.SetWriteBuffer(socketBuffer)
	}
}
