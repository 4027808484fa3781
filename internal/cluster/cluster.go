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
	"os"
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
	Client      string // name of this process, for who looks at the servers' connections

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
		class := fault.Unavailable
		hint := "is a nats-server there, and is engine.url its address?"
		if errors.Is(err, nats.ErrAuthorization) {
			class, hint = fault.Auth, "name the file to log in with in engine.credentials"
		}
		return nil, fault.New(class, "connect to NATS at %s: %w", Shown(o.URL), err).WithHint("%s", hint)
	}
	c := &Cluster{conn: conn, name: o.Stream, Lease: o.Lease}
	if c.JetStream, err = jetstream.New(conn); err == nil {
		err = c.open(ctx, o)
	}
	if err != nil {
		conn.Close()
		return nil, Wrap(err, "open the streams of %s in NATS at %s", o.Stream, Shown(o.URL))
	}
	return c, nil
}

// Shown returns addresses without what is secret in them (I9).
func Shown(urls string) string {
	parts := strings.Split(urls, ",")
	for i, p := range parts {
		if scheme, rest, ok := strings.Cut(p, "://"); ok {
			if _, host, user := strings.Cut(rest, "@"); user {
				parts[i] = scheme + "://" + host
			}
		}
	}
	return strings.Join(parts, ",")
}

// Wrap gives an error of NATS a class and says what was tried.
func Wrap(err error, format string, args ...any) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	class := fault.Unavailable
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return fault.New(fault.Config, "%s: %w", fmt.Sprintf(format, args...), err).WithHint("start nats-server with JetStream: -js, or a jetstream block in its configuration")
	}
	return fault.Wrap(class, err, format, args...)
}

func credentials(path string) (nats.Option, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Config, "read the credentials for NATS: %w", err).WithKey("engine.credentials")
	}
	if strings.Contains(string(text), "BEGIN NATS USER JWT") {
		return nats.UserCredentials(path), nil
	}
	login, err := nats.NkeyOptionFromSeed(path)
	if err != nil {
		return nil, fault.New(fault.Config, "%s holds no credentials for NATS: %w", path, err).WithKey("engine.credentials").
			WithHint("expected what `nsc generate creds` writes, or the seed of an NKey")
	}
	return login, nil
}

func (c *Cluster) open(ctx context.Context, o Options) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
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
