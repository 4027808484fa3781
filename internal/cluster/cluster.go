// Package cluster is where the processes that share a run meet: the streams
// and buckets of one pipeline in NATS JetStream, and the connection to them.
//
//	NAME_TASKS     stream, work queue: tasks that nobody has done yet
//	NAME_LETTERS   stream: dead letters, the last word on each
//	NAME_LEASES    bucket whose keys end after the lease time: who works on what
//	NAME_BOOKS     bucket: a manifest a task, the run under way, the budgets
//
// The queue only brings tasks. Who may work on one is said by the lease, and
// what counts of the work by the manifest.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Options say where NATS is, and what the pipeline's things are called there.
type Options struct {
	URL         string // of the servers, with commas between
	Credentials string // path of a .creds file, or of one with the seed of an NKey; empty: none
	Stream      string // begins the names of streams and buckets
	Replicas    int    // of streams and buckets
	Lease       time.Duration
	Client      string       // name of this process, for who looks at the servers' connections
	Log         *slog.Logger // what the servers say unasked; nil: it is left out

	// Make makes what isn't there and changes what is there otherwise. Without
	// it what is there must be of the same lease time.
	Make bool
}

// Cluster is a connection with the pipeline's streams and buckets. Its methods
// and fields may be used by many goroutines. Close must be called.
type Cluster struct {
	JetStream jetstream.JetStream
	Tasks     jetstream.Stream
	Letters   jetstream.Stream
	Leases    jetstream.KeyValue
	Books     jetstream.KeyValue
	Lease     time.Duration

	name string
	conn *nats.Conn
}

// reconnectWait is the pause between two tries to connect again.
const reconnectWait = 250 * time.Millisecond

// Open connects, and finds or makes the streams and buckets. The error is of
// class Unavailable where nobody answers, Auth where the login is refused, and
// Config where what is there is of another lease time.
func Open(ctx context.Context, o Options) (*Cluster, error) {
	options := []nats.Option{
		nats.Name(o.Client), nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectWait, reconnectWait),
		nats.Timeout(10 * time.Second), nats.PingInterval(max(o.Lease/4, time.Second)), nats.MaxPingsOutstanding(2),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { // else it goes to stderr, into the progress
			if o.Log != nil {
				o.Log.Warn("NATS", "said", err)
			}
		}),
	}
	if o.Credentials != "" {
		login, err := credentials(o.Credentials)
		if err != nil {
			return nil, err
		}
		options = append(options, login)
	}
	conn, err := nats.Connect(o.URL, options...)
	if err != nil {
		return nil, o.refused(err)
	}
	c := &Cluster{conn: conn, name: o.Stream, Lease: o.Lease}
	if c.JetStream, err = jetstream.New(conn); err == nil {
		err = Insist(ctx, func(ctx context.Context) error { return c.open(ctx, o) })
	}
	if err != nil {
		conn.Close()
		return nil, Wrap(err, "open the streams of %s in NATS at %s", o.Stream, Shown(o.URL))
	}
	return c, nil
}

// refused says why there is no connection, and what to do.
func (o *Options) refused(err error) error {
	at := Shown(o.URL)
	var address *url.Error
	switch {
	case errors.As(err, &address): // its text has the address, and what is secret in it (I9)
		return fault.New(fault.Config, "%s is no address of NATS", at).WithKey("engine.url").
			WithHint("expected addresses as in nats://127.0.0.1:4222, with commas between; what isn't a letter or digit in a password is written as %%XX")
	case !denied(err):
		return fault.New(fault.Unavailable, "connect to NATS at %s: %w", at, err).WithHint("is a nats-server there, and is engine.url its address?")
	case o.Credentials != "":
		return fault.New(fault.Auth, "log in at NATS at %s with %s: %w", at, o.Credentials, err).WithKey("engine.credentials").
			WithHint("the server doesn't let in whose credentials are in that file: see that it is the file for this server, hasn't expired, and that its user is in the server's configuration")
	case strings.Contains(o.URL, "@"):
		return fault.New(fault.Auth, "log in at NATS at %s as the address says: %w", at, err).WithKey("engine.url").
			WithHint("the user or the password in the address is wrong")
	}
	return fault.New(fault.Auth, "connect to NATS at %s: %w", at, err).WithKey("engine").
		WithHint("the server wants a login: name the file for it in engine.credentials, or write user and password into engine.url as a reference, nats://${env:USER}:${env:PASSWORD}@host:4222")
}

// denied reports whether a server refused the login. What servers say isn't
// always one of the client's errors.
func denied(err error) bool {
	text := strings.ToLower(err.Error())
	return slices.ContainsFunc([]error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrNkeysNotSupported}, func(e error) bool {
		return strings.Contains(text, strings.TrimPrefix(e.Error(), "nats: "))
	})
}

// Closed returns why the connection is closed for good, as when the servers
// refuse the login by now; nil while there is hope.
func (c *Cluster) Closed() error {
	if !c.conn.IsClosed() {
		return nil
	}
	why := c.conn.LastError()
	if why == nil {
		why = nats.ErrConnectionClosed
	}
	f := fault.New(fault.Unavailable, "the connection to NATS is closed: %w", why)
	if denied(why) {
		f.Class = fault.Auth
		f = f.WithHint("the servers refuse the login by now: see whether the credentials have expired, and start again")
	}
	return f
}

// Shown returns addresses without what is secret in them (I9).
func Shown(urls string) string {
	parts := strings.Split(urls, ",")
	for i, p := range parts {
		if at := strings.LastIndexByte(p, '@'); at >= 0 {
			scheme, _, ok := strings.Cut(p[:at], "://")
			if ok {
				scheme += "://"
			} else {
				scheme = ""
			}
			parts[i] = scheme + p[at+1:]
		}
	}
	return strings.Join(parts, ",")
}

// Wrap gives an error of NATS a class and says what was tried.
func Wrap(err error, format string, args ...any) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	var api *jetstream.APIError
	switch {
	case disabled(err):
		return fault.New(fault.Config, "%s: %w", fmt.Sprintf(format, args...), err).WithHint("start nats-server with JetStream: -js, or a jetstream block in its configuration")
	case errors.As(err, &api) && (api.ErrorCode == codeReplicas || api.ErrorCode == codePeers):
		return fault.New(fault.Config, "%s: %w", fmt.Sprintf(format, args...), err).WithKey("engine.replicas").
			WithHint("a stream has as many replicas as the cluster has nodes, or fewer: 1 for a single server")
	}
	return fault.Wrap(fault.Unavailable, err, format, args...)
}

// What JetStream says where there are too few nodes: to a server that is alone,
// and to a cluster.
const (
	codeReplicas jetstream.ErrorCode = 10074
	codePeers    jetstream.ErrorCode = 10005
)

// disabled reports whether the servers have no JetStream.
func disabled(err error) bool {
	return errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount)
}

// credentials reads the file to log in with. A file that holds none is told
// here: at the server it would only look like one that isn't there.
func credentials(path string) (nats.Option, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Config, "read the credentials for NATS: %w", err).WithKey("engine.credentials")
	}
	var login nats.Option
	if strings.Contains(string(text), "BEGIN NATS USER JWT") {
		login = nats.UserCredentials(path)
		var tried nats.Options
		if err = login(&tried); err == nil {
			_, err = tried.UserJWT()
		}
		if err == nil {
			_, err = tried.SignatureCB([]byte("x"))
		}
	} else {
		login, err = nats.NkeyOptionFromSeed(path)
	}
	if err != nil {
		return nil, fault.New(fault.Config, "%s holds no credentials for NATS: %w", path, err).WithKey("engine.credentials").
			WithHint("expected what \"nsc generate creds\" writes, or the seed of an NKey; a user and a password stand in engine.url")
	}
	return login, nil
}

func (c *Cluster) open(ctx context.Context, o Options) (err error) {
	tasks := jetstream.StreamConfig{
		Name: c.name + "_TASKS", Subjects: []string{c.name + ".task.*"}, Retention: jetstream.WorkQueuePolicy,
		Storage: jetstream.FileStorage, Replicas: o.Replicas, Description: "tasks of a Mailhaul pipeline that nobody has done yet",
	}
	letters := jetstream.StreamConfig{
		Name: c.name + "_LETTERS", Subjects: []string{c.name + ".letter.*.*"}, MaxMsgsPerSubject: 1,
		Storage: jetstream.FileStorage, Replicas: o.Replicas, Description: "dead letters of a Mailhaul pipeline",
	}
	leases := jetstream.KeyValueConfig{
		Bucket: c.name + "_LEASES", TTL: o.Lease, Storage: jetstream.FileStorage, Replicas: o.Replicas,
		Description: "who works on what, of a Mailhaul pipeline",
	}
	books := jetstream.KeyValueConfig{
		Bucket: c.name + "_BOOKS", Storage: jetstream.FileStorage, Replicas: o.Replicas,
		Description: "what was done, of a Mailhaul pipeline",
	}
	stream, bucket := c.find, c.findBucket
	if o.Make {
		stream, bucket = c.JetStream.CreateOrUpdateStream, c.JetStream.CreateOrUpdateKeyValue
	}
	if c.Tasks, err = stream(ctx, tasks); err != nil {
		return err
	}
	if c.Letters, err = stream(ctx, letters); err != nil {
		return err
	}
	if c.Leases, err = bucket(ctx, leases); err != nil {
		return err
	}
	c.Books, err = bucket(ctx, books)
	return err
}

// find returns a stream that is there, or makes it.
func (c *Cluster) find(ctx context.Context, config jetstream.StreamConfig) (jetstream.Stream, error) {
	s, err := c.JetStream.Stream(ctx, config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return c.JetStream.CreateOrUpdateStream(ctx, config)
	}
	return s, err
}

// findBucket returns a bucket that is there, or makes it.
func (c *Cluster) findBucket(ctx context.Context, config jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	kv, err := c.JetStream.KeyValue(ctx, config.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return c.JetStream.CreateOrUpdateKeyValue(ctx, config)
	}
	if err != nil {
		return nil, err
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return nil, err
	}
	if status.TTL() != config.TTL {
		return nil, fault.New(fault.Config, "bucket %s ends leases after %s, and the file says %s", config.Bucket, status.TTL(), config.TTL).
			WithKey("engine.lease").WithHint("give all workers the file that `pipeline run` has; a run changes the bucket")
	}
	return kv, nil
}

// Name returns what begins the names of the pipeline's streams.
func (c *Cluster) Name() string { return c.name }

// Close ends the connection. Leases end by themselves.
func (c *Cluster) Close() { c.conn.Close() }
