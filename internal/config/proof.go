package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// Report names the files that a run writes at its end; an empty one isn't
// written. A relative path is one of the pipeline file's folder.
type Report struct {
	JSON string `json:"json" doc:"path of the report as JSON (docs/reference/report.schema.json); like the others it may be an address in a bucket" example:"reports/last.json"`
	HTML string `json:"html" doc:"path of the report as one page for a browser, which needs no network" example:"reports/last.html"`
	CSV  string `json:"csv" doc:"path of a table with a row for each account" example:"reports/accounts.csv"`
}

// address checks a path that may be the address of an object in a bucket.
func (b *builder) address(key, path string) {
	if !objects.IsAddress(path) {
		return
	}
	l, err := objects.Parse(path)
	switch {
	case err != nil:
		b.at(key, "%v (%s)", err, fault.As(err).Hint)
	case l.Prefix == "" && !strings.HasPrefix(l.Bucket, "file:"):
		b.at(key, "%s names a bucket and no object in it: write it as s3://bucket/reports/last.json", l.Target)
	}
}

// Custody says what evidence each run leaves (docs/reference/custody.md).
type Custody struct {
	Path      string   `json:"path" required:"true" doc:"folder of the manifests and records; made when missing" example:"export/custody"`
	Manifest  []string `json:"manifest" default:"[\"sha256\"]" doc:"hashes of the manifests: sha256 always, md5 beside it where somebody asks for it" example:"[\"sha256\", \"md5\"]"`
	Sign      *Sign    `json:"sign" doc:"with what the record of a run is signed"`
	Timestamp string   `json:"timestamp" doc:"URL of a time-stamping authority (RFC 3161) that says when the record was there" example:"https://freetsa.org/tsr"`
}

// Sign names the key that signs.
type Sign struct {
	SSHKey string `json:"ssh_key" required:"true" doc:"path of an OpenSSH private key without a passphrase; its signature is checked with ssh-keygen -Y verify" example:"~/.ssh/custody_ed25519"`
}

// proof checks what tags can't say of report and custody.
func (b *builder) proof(f *File) {
	if objects.IsAddress(f.State) {
		b.at("state", "expected a folder of this machine, found the address of a bucket: the ledger is a database in files")
	}
	paths := map[string]string{}
	for _, r := range []struct{ key, path string }{{"json", f.Report.JSON}, {"html", f.Report.HTML}, {"csv", f.Report.CSV}} {
		if other, ok := paths[r.path]; ok && r.path != "" {
			b.at("report."+r.key, "%q is the path of report.%s too", r.path, other)
		}
		paths[r.path] = r.key
		b.address("report."+r.key, r.path)
	}
	c := f.Custody
	if c == nil {
		return
	}
	if objects.IsAddress(c.Path) {
		b.at("custody.path", "expected a folder of this machine, found the address of a bucket: copy the folder there after the run")
	}
	for i, h := range c.Manifest {
		if h != "sha256" && h != "md5" {
			b.at(fmt.Sprintf("custody.manifest[%d]", i), "expected sha256 or md5, found %q", h)
		}
	}
	if len(c.Manifest) == 0 {
		c.Manifest = []string{"sha256"}
	}
	if !slices.Contains(c.Manifest, "sha256") {
		b.at("custody.manifest", "expected sha256 among them: md5 alone proves nothing")
	}
	if c.Timestamp == "" {
		return
	}
	if u, err := url.Parse(c.Timestamp); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		b.at("custody.timestamp", "expected a URL as in https://freetsa.org/tsr, found %q", c.Timestamp)
	}
}
