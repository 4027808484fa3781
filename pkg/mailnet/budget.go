package mailnet

import (
	"fmt"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/spec"
)

// Budget is what a provider, or the file, grants an account in a period.
type Budget struct {
	Bytes Allowance `json:"bytes" doc:"most octets of mail in a time of h, day or week; none: no bound, whatever the provider says" example:"2.3GB/day"`
}

// IsZero reports whether nothing was said.
func (b Budget) IsZero() bool { return b.Bytes.Octets == 0 }

// Allowance is so many octets in a period. In a file it is written
// "2.3GB/day"; the periods are h, day and week. The zero Allowance is not set;
// "none" has -1 octets.
type Allowance struct {
	Octets int64
	Per    time.Duration
}

var periods = []struct {
	name string
	d    time.Duration
}{{"week", 7 * 24 * time.Hour}, {"day", 24 * time.Hour}, {"h", time.Hour}}

// UnmarshalText reads "2.3GB/day".
func (a *Allowance) UnmarshalText(text []byte) error {
	if string(text) == "none" {
		*a = Allowance{Octets: -1}
		return nil
	}
	amount, per, _ := strings.Cut(string(text), "/")
	octets, err := spec.ParseBytes(strings.TrimSpace(amount))
	for _, p := range periods {
		if err == nil && octets > 0 && strings.TrimSpace(per) == p.name {
			*a = Allowance{int64(octets), p.d}
			return nil
		}
	}
	return fmt.Errorf("%q is no budget: expected a size for each h, day or week, as in 2.3GB/day, or none", text)
}

// MarshalText returns what UnmarshalText reads.
func (a Allowance) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// String returns the text of the file.
func (a Allowance) String() string {
	if a.Octets < 0 {
		return "none"
	}
	for _, p := range periods {
		if a.Octets > 0 && a.Per == p.d {
			return spec.Bytes(a.Octets).String() + "/" + p.name
		}
	}
	return ""
}
