package objects

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// The calls, as they stand on the socket: HTTP/1.1, because that brings
// streams, many calls at once and an end to each of them, and every Go program
// with gRPC in it has it already. The key stands in the query.
//
//	PUT    /object?key=K     the body is the object; HeaderMeta; If-None-Match: * where nothing may be there
//	GET    /object?key=K     with offset=N from that octet on; HeaderMeta, but with bare=1
//	HEAD   /object?key=K     HeaderMeta
//	DELETE /object?key=K     also of what isn't there
//	GET    /list?prefix=P    a Page; delimiter=/ for one level, token=T for the next page
//	GET    /uploads?prefix=P a Page of those that were begun and not ended; token=T for the next page
//	GET    /check            that the bucket is there and may be listed
//
// Every call names its bucket in HeaderBucket. An answer of 400 and above is a
// Failure.
const (
	PathObject  = "/object"
	PathList    = "/list"
	PathUploads = "/uploads"
	PathCheck   = "/check"

	HeaderBucket = "Mailhaul-Bucket"
	HeaderMeta   = "Mailhaul-Meta" // JSON: map of strings
	// HeaderFailure holds the Failure too, for HEAD, whose answer has no body.
	HeaderFailure = "Mailhaul-Failure"
)

// Listed is an object in a listing.
type Listed struct {
	Key  string `json:"key"`
	Size int64  `json:"size"`
	Dir  bool   `json:"dir,omitempty"` // a level below, where a delimiter was given
}

// Page is a page of a listing.
type Page struct {
	Objects []Listed `json:"objects"`
	Next    []byte   `json:"next,omitempty"` // token of the next page
}

// Failure is what the store answers instead.
type Failure struct {
	Class      fault.Class   `json:"class"`
	Text       string        `json:"text"`
	Hint       string        `json:"hint,omitempty"`
	Key        string        `json:"key,omitempty"`
	RetryAfter time.Duration `json:"retry_after,omitempty"`
	Missing    bool          `json:"missing,omitempty"` // there is no such object
	There      bool          `json:"there,omitempty"`   // there is one, and there should be none
	// Refused: the server refuses this object, and perhaps no other.
	Refused bool `json:"refused,omitempty"`
	// Failed: the server answered that it failed, as with 500.
	Failed bool `json:"failed,omitempty"`
	// Unconditional: the server can't write on the condition that nothing is there.
	Unconditional bool `json:"unconditional,omitempty"`
}

// WriteFailure answers a call with an error.
func WriteFailure(w http.ResponseWriter, f Failure) {
	b, err := json.Marshal(f)
	if err != nil { // strings and numbers can always be marshalled
		panic(err)
	}
	status := http.StatusInternalServerError
	switch {
	case f.Missing:
		status = http.StatusNotFound
	case f.There:
		status = http.StatusPreconditionFailed
	}
	w.Header().Set(HeaderFailure, string(b))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // who called is gone otherwise
}
