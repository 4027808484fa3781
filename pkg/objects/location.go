// Package objects is the host's and the sinks' side of object storage: where a
// bucket is, and the calls on it. The SDKs of the clouds aren't here: they run
// in a process of their own, the store (plugins/pipeline-store-objects), which
// is talked to over a unix socket and started only when something is kept in a
// bucket (docs/adr/0014-object-storage.md).
//
// The protocol between the two isn't frozen: both ends come from one build. A
// sink needs package target alone.
package objects

import (
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Schemes are those of the addresses that are kept in a store of objects. file
// is for trying it out: a folder that is used as a bucket.
var schemes = []string{"s3", "gs", "azblob", "file"}

// ParameterSilence is the parameter of an address for Location.Silence.
const ParameterSilence = "silence"

// Location is a place in a bucket.
type Location struct {
	Bucket string // address of the bucket with its parameters, as the store takes it
	Prefix string // of the keys, without "/" at either end; empty: the whole bucket
	Target string // the place without parameters: what the ledger and people know it by

	// Patience is the parameter patience: how long a call goes on where the
	// server is not to be reached or asks to slow down; 0: not given.
	Patience time.Duration
	// Silence is the parameter silence: how long a server may say nothing at
	// all before a connection is given up; 0: not given. The store reads it too.
	Silence time.Duration
}

// IsAddress reports whether a path is the address of a place in a bucket. A
// path of one letter and a colon is a Windows drive.
func IsAddress(path string) bool {
	scheme, _, ok := strings.Cut(path, "://")
	return ok && len(scheme) > 1 && !strings.ContainsAny(scheme, `/\`)
}

// Parse reads an address: scheme://bucket/prefix?parameters. Errors are of
// class Config with the key path.
func Parse(address string) (Location, error) {
	wrong := func(hint, format string, args ...any) (Location, error) {
		return Location{}, fault.New(fault.Config, format, args...).WithHint("%s", hint).WithKey("path")
	}
	u, err := url.Parse(address)
	if err != nil {
		// The parser's error shows the address, which may hold a password.
		return wrong("write it as s3://bucket/prefix?region=eu-central-1", "the address of the bucket can't be read")
	}
	shown := u.Scheme + "://" + u.Host + u.Path
	switch {
	case !slices.Contains(schemes, u.Scheme):
		return wrong("s3://, gs:// and azblob:// are known; a path without :// is a folder", "%s: no store of objects has addresses that begin with %s://", shown, u.Scheme)
	case u.User != nil:
		return wrong("give them as docs/reference/object-storage.md says: in the environment, or in a file of the cloud's own",
			"%s: a user or password stands in the address of the bucket", u.Scheme+"://"+u.Host+u.Path)
	case u.Fragment != "":
		return wrong("write # as %23", "%s: there is a # in the address of the bucket", shown)
	case u.Scheme == "file" && (u.Host != "" || u.Path == "" || u.Path == "/"):
		return wrong("write file:///folder", "%s: a folder that is used as a bucket is named by a whole path", shown)
	case u.Scheme != "file" && u.Host == "":
		return wrong("write "+u.Scheme+"://bucket/prefix", "%s: it names no bucket", shown)
	}
	l := Location{Bucket: u.Scheme + "://" + u.Host}
	if u.Scheme == "file" {
		l.Bucket = "file://" + path.Clean(u.Path)
		l.Target = l.Bucket
	} else {
		l.Prefix = strings.TrimPrefix(path.Clean("/"+u.Path), "/")
		l.Target = strings.TrimSuffix(l.Bucket+"/"+l.Prefix, "/")
	}
	query := u.Query()
	for name, to := range map[string]*time.Duration{"patience": &l.Patience, ParameterSilence: &l.Silence} {
		text := query.Get(name)
		if text == "" {
			continue
		}
		if *to, err = time.ParseDuration(text); err != nil || *to < time.Second {
			return wrong("write it as "+name+"=5m", "%s: the parameter %s is %q (expected a time of at least 1s)", shown, name, text)
		}
	}
	query.Del("patience")
	if len(query) > 0 {
		l.Bucket += "?" + query.Encode()
	}
	return l, nil
}

// Up returns the place that holds this one, and its name in there. A folder
// that is used as a bucket is the one that the file lies in.
func (l Location) Up() (Location, string) {
	up := l
	bare, query, _ := strings.Cut(l.Bucket, "?")
	if scheme, dir, _ := strings.Cut(bare, "://"); scheme == "file" {
		up.Bucket = "file://" + path.Dir(dir)
		if query != "" {
			up.Bucket += "?" + query
		}
		up.Target = "file://" + path.Dir(dir)
		return up, path.Base(dir)
	}
	up.Prefix = strings.TrimPrefix(path.Dir("/"+l.Prefix), "/")
	up.Target = strings.TrimSuffix(bare+"/"+up.Prefix, "/")
	return up, path.Base("/" + l.Prefix)
}

// Key returns the key of a name in the place.
func (l Location) Key(name string) string {
	if l.Prefix == "" {
		return name
	}
	return l.Prefix + "/" + name
}
