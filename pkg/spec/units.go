package spec

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Bytes is a number of octets. In a file it is written "25MB": KB, MB, GB, TB
// count in thousands, KiB, MiB, GiB, TiB in 1,024s; a bare number is octets.
type Bytes int64

// The units of sizes, in files and in expressions.
const (
	KB Bytes = 1000
	MB       = 1000 * KB
	GB       = 1000 * MB
	TB       = 1000 * GB

	KiB Bytes = 1 << 10
	MiB       = 1 << 20
	GiB       = 1 << 30
	TiB       = 1 << 40
)

var byteUnits = []struct {
	name string
	size Bytes
}{
	{"TiB", TiB}, {"TB", TB}, {"GiB", GiB}, {"GB", GB}, {"MiB", MiB}, {"MB", MB}, {"KiB", KiB}, {"KB", KB}, {"B", 1},
}

// ParseBytes reads "25MB", "1.5 GiB" or "4096". Upper and lower case are the
// same. A bare K, M or G is refused: it doesn't say which of the two it means.
func ParseBytes(text string) (Bytes, error) {
	number, unit := splitUnit(text)
	size := Bytes(1)
	if unit != "" {
		size = 0
		for _, u := range byteUnits {
			if strings.EqualFold(u.name, unit) {
				size = u.size
			}
		}
		if size == 0 {
			return 0, fmt.Errorf("%q is no size: expected a number and one of B, KB, MB, GB, TB (thousands), KiB, MiB, GiB, TiB (1,024s), as in 25MB", text)
		}
	}
	if whole, err := strconv.ParseInt(number, 10, 64); err == nil && whole >= 0 {
		if whole > math.MaxInt64/int64(size) {
			return 0, fmt.Errorf("%q is more than %s", text, Bytes(math.MaxInt64))
		}
		return Bytes(whole) * size, nil
	}
	f, err := parseNumber(number)
	if err != nil {
		return 0, fmt.Errorf("%q is no size: expected one as in 25MB, 1.5GiB or 4096", text)
	}
	if f *= float64(size); f >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is more than %s", text, Bytes(math.MaxInt64))
	}
	return Bytes(math.Round(f)), nil
}

// String returns the shortest exact text that ParseBytes reads back.
func (b Bytes) String() string {
	for _, u := range byteUnits {
		if b != 0 && b%u.size == 0 && u.size > 1 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Rate is so much a second: of messages or requests, or of octets. In a file
// it is written "50/s", "600/m", "20000/h" or "5MB/s". The zero Rate means no
// limit.
type Rate struct {
	PerSecond float64 // things, or octets where Octets is set
	Octets    bool
}

// ParseRate reads "50/s", "600/m", "20000/h", "5MB/s" or "1GB/h".
func ParseRate(text string) (Rate, error) {
	bad := fmt.Errorf("%q is no rate: expected a number or a size for each s, m or h, as in 50/s or 5MB/s", text)
	amount, per, ok := strings.Cut(text, "/")
	if !ok {
		return Rate{}, bad
	}
	var seconds float64
	switch strings.TrimSpace(per) {
	case "s":
		seconds = 1
	case "m":
		seconds = 60
	case "h":
		seconds = 3600
	default:
		return Rate{}, bad
	}
	number, unit := splitUnit(amount)
	if unit != "" {
		b, err := ParseBytes(amount)
		if err != nil {
			return Rate{}, bad
		}
		return Rate{PerSecond: float64(b) / seconds, Octets: true}, nil
	}
	f, err := parseNumber(number)
	if err != nil {
		return Rate{}, bad
	}
	return Rate{PerSecond: f / seconds}, nil
}

// IsZero reports whether there is no limit.
func (r Rate) IsZero() bool { return r.PerSecond == 0 }

// String returns the rate for a second, as ParseRate reads it. What is below an
// octet a second is one: zero would be no limit at all.
func (r Rate) String() string {
	if r.Octets {
		octets := math.Round(r.PerSecond)
		if !r.IsZero() {
			octets = max(octets, 1)
		}
		return Bytes(octets).withUnit() + "/s"
	}
	return strconv.FormatFloat(r.PerSecond, 'f', -1, 64) + "/s"
}

// withUnit is String with a unit always, so that a rate of octets stays one.
func (b Bytes) withUnit() string {
	s := b.String()
	if s[len(s)-1] != 'B' {
		s += "B"
	}
	return s
}

var daysForm = regexp.MustCompile(`([0-9]+(?:\.[0-9]+)?)d`)

// parseDuration reads what time.ParseDuration reads, never negative, and d for
// days of 24 hours.
func parseDuration(text string) (time.Duration, error) {
	hours := daysForm.ReplaceAllStringFunc(text, func(days string) string {
		n, err := strconv.ParseFloat(days[:len(days)-1], 64)
		if err != nil {
			return days // what follows says so
		}
		return strconv.FormatFloat(24*n, 'f', -1, 64) + "h"
	})
	d, err := time.ParseDuration(hours)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no duration: expected one as in 30s, 5m or 1h30m", text)
	}
	return d, nil
}

func splitUnit(text string) (number, unit string) {
	text = strings.TrimSpace(text)
	i := len(text)
	for i > 0 && (text[i-1] >= 'a' && text[i-1] <= 'z' || text[i-1] >= 'A' && text[i-1] <= 'Z') {
		i--
	}
	return strings.TrimSpace(text[:i]), text[i:]
}

// parseNumber takes plain decimals alone: no signs, exponents, infinities.
func parseNumber(s string) (float64, error) {
	if s == "" || strings.Trim(s, "0123456789.") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(s, 64)
}
