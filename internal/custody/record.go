// Package custody leaves evidence of what was exported: after each run the
// hashes of all files, a record of the run that is signed and timestamped, and
// what the run couldn't do. Everything can be checked without this program:
// with sha256sum, ssh-keygen and openssl. Each record holds the hash of the one
// before it.
package custody

import (
	"time"

	"github.com/mailhaul/pipeline/internal/report"
)

// recordVersion is the version of the record's form. Fields may be added
// without a new one.
const recordVersion = 1

// Names of the files in a record's folder, and of the manifests of everything
// beside the folders.
const (
	RecordName     = "record.json"
	SignatureName  = "record.json.sig"
	TimestampName  = "record.json.tsr"
	ConfigName     = "config.json"
	ExceptionsName = "exceptions.csv"
	SignersName    = "allowed_signers"
	addedName      = "added."
	manifestName   = "manifest."
	// objectsName follows one of these two in the names of those whose paths are
	// addresses of objects: programs that read files can't check them as they
	// are.
	objectsName = "objects."
)

// Record is what a record.json holds.
type Record struct {
	Version  int       `json:"version"`
	Number   int       `json:"number"`             // of the record, from 1
	Previous *Previous `json:"previous,omitempty"` // absent in the first
	Pipeline string    `json:"pipeline"`
	ID       string    `json:"pipeline_id"` // as it stands in the targets' markers
	Run      int64     `json:"run"`         // number of the run in the ledger
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	Exit     int       `json:"exit"`
	Outcome  string    `json:"outcome"`
	Error    string    `json:"error,omitempty"` // why it stopped

	Operator Operator  `json:"operator"`
	Tool     Program   `json:"tool"`
	Plugins  []Program `json:"plugins"`
	Config   File      `json:"config"` // the pipeline file as it was, without its secrets

	Sources []Source `json:"sources"`
	Stages  []Stage  `json:"stages"`
	Sinks   []Sink   `json:"sinks"`

	Total      report.Sum `json:"total"`
	Manifests  []File     `json:"manifests"` // of everything as of this run
	Added      []File     `json:"added"`     // of what this run added or changed
	Removed    []string   `json:"removed"`   // of the paths of the record before
	Exceptions File       `json:"exceptions"`
}

// Previous is the record before.
type Previous struct {
	Number int    `json:"number"`
	SHA256 string `json:"sha256"` // of its record.json
}

// Operator says who ran it, and where.
type Operator struct {
	User string `json:"user"`
	Host string `json:"host"`
	OS   string `json:"os"`
}

// Program is an executable that took part.
type Program struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"` // of the executable; empty for a plugin that somebody else had started
	Go      string `json:"go,omitempty"`
}

// File is a file of the record.
type File struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Lines  int64  `json:"lines,omitempty"` // entries or rows
}

// Source is one account, and what its server said.
type Source struct {
	Name      string            `json:"name"`
	Plugin    string            `json:"plugin"`
	URL       string            `json:"url,omitempty"`
	Server    map[string]string `json:"server,omitempty"` // address, ip, tls, certificate_sha256
	State     string            `json:"state"`
	Error     string            `json:"error,omitempty"`
	Include   []string          `json:"include"`
	Exclude   []string          `json:"exclude,omitempty"`
	Newest    bool              `json:"newest_first,omitempty"`
	Limit     int64             `json:"limit,omitempty"`
	Mailboxes []report.Mailbox  `json:"mailboxes"` // with UIDVALIDITY, the server's count (EXISTS) and the sum; the excluded, too
}

// Stage is a query or another stage that messages passed.
type Stage struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Text string `json:"text,omitempty"` // the expression
}

// Sink is where messages went.
type Sink struct {
	Name   string `json:"name"`
	Plugin string `json:"plugin"`
	Target string `json:"target"`
	// Address is how a target in a bucket is reached.
	Address string `json:"address,omitempty"`

	When   string `json:"when,omitempty"`
	Files  int64  `json:"files"`
	Octets int64  `json:"octets"`
	Note   string `json:"note,omitempty"` // why it isn't in the manifest
}
