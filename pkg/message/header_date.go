package message

import (
	"strings"
	"time"
)

// ParseDate reads a date as mail really has it (RFC 5322 §3.3 and §4.3, RFC
// 850, asctime, ISO 8601): comments, obsolete and named zones, two-digit
// years, no weekday, odd order and separators. A date without a zone is UTC.
// It is false when there is no day in it.
func ParseDate(s string) (time.Time, bool) {
	if t, ok := usualDate(s); ok {
		return t, true
	}
	return anyDate(s)
}

func anyDate(s string) (time.Time, bool) {
	d := dateParser{day: -1, year: -1}
	d.hour, d.min, d.sec = -1, 0, 0
	for _, tok := range dateTokens(s) {
		d.token(tok)
	}
	return d.time()
}

// usualDate reads what nearly all mail has, "Mon, 2 Jan 2006 15:04:05 -0700"
// with or without the weekday, as anyDate does: it stands in the name of every
// file. It is false for everything else.
func usualDate(s string) (time.Time, bool) {
	if len(s) > 5 && s[3] == ',' && s[4] == ' ' {
		for _, c := range []byte(s[:3]) {
			if c|0x20 < 'a' || c|0x20 > 'z' {
				return time.Time{}, false
			}
		}
		if monthOf(s[:3]) != 0 {
			return time.Time{}, false
		}
		s = s[5:]
	}
	n := digits(s)
	if n < 1 || n > 2 || len(s) != n+len(" Jan 2006 15:04:05 -0700") {
		return time.Time{}, false
	}
	day := atoi(s[:n])
	s = s[n:]
	two := func(at int) (int, bool) { return atoi(s[at : at+2]), digits(s[at:at+2]) == 2 }
	month := monthOf(s[1:4])
	year := atoi(s[5:9])
	hour, ok1 := two(10)
	minute, ok2 := two(13)
	second, ok3 := two(16)
	east, ok4 := two(20)
	odd, ok5 := two(22)
	if s[0] != ' ' || s[4] != ' ' || s[9] != ' ' || s[12] != ':' || s[15] != ':' || s[18] != ' ' || s[19] != '+' && s[19] != '-' ||
		digits(s[5:9]) != 4 || !ok1 || !ok2 || !ok3 || !ok4 || !ok5 ||
		month == 0 || day < 1 || day > 28 || year < 1000 || hour > 23 || minute > 59 || second > 59 || east > 23 || odd > 59 {
		return time.Time{}, false
	}
	loc := time.UTC
	if zone := east*3600 + odd*60; zone != 0 {
		if s[19] == '-' {
			zone = -zone
		}
		loc = time.FixedZone("", zone)
	}
	return time.Date(year, month, day, hour, minute, second, 0, loc), true
}

type dateParser struct {
	year, day            int
	month                time.Month
	hour, min, sec, nsec int
	zone                 int // seconds east of UTC
	haveZone             bool
	afternoon            int // 1: AM, 2: PM
	numbers              []string
}

// dateTokens cuts at blanks and commas and leaves comments out.
func dateTokens(s string) []string {
	if len(s) > 256 {
		s = s[:256]
	}
	for {
		i := strings.IndexByte(s, '(')
		if i < 0 {
			break
		}
		_, n := comment(s[i:])
		s = s[:i] + " " + s[i+n:]
	}
	return strings.FieldsFunc(s, func(r rune) bool {
		return r == ' ' || r == '\t' || r == ',' || r == '\r' || r == '\n' || r == ';' || r == '"'
	})
}

func (d *dateParser) token(t string) {
	switch {
	case t[0] == '+' || t[0] == '-' && len(t) > 1 && digits(t[1:]) >= 1:
		d.offset(t)
	case strings.Contains(t, ":") || d.isDottedTime(t):
		d.clock(t)
	case t[0] >= '0' && t[0] <= '9':
		d.number(t)
	default:
		d.word(t)
	}
}

// isDottedTime recognises 10.30.00, as some write it.
func (d *dateParser) isDottedTime(t string) bool {
	if d.hour >= 0 || d.day < 0 || d.month == 0 || strings.Count(t, ".") < 1 {
		return false
	}
	for _, p := range strings.Split(t, ".") {
		if len(p) == 0 || len(p) > 2 || digits(p) != len(p) {
			return false
		}
	}
	return true
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func atoi(s string) int {
	n := 0
	for i := 0; i < len(s) && s[i] >= '0' && s[i] <= '9' && n < 1e8; i++ {
		n = n*10 + int(s[i]-'0')
	}
	return n
}

// clock reads 10:30, 10:30:15, 10:30:15.25, with a zone or a date grown on.
func (d *dateParser) clock(t string) {
	if i := strings.IndexByte(t, 'T'); i == 10 || i == 8 { // ISO 8601
		d.number(t[:i])
		t = t[i+1:]
	}
	if d.hour >= 0 {
		return
	}
	i := 0
	part := func() (int, bool) {
		n := digits(t[i:])
		if n == 0 {
			return 0, false
		}
		v := atoi(t[i : i+n])
		i += n
		return v, true
	}
	h, ok := part()
	if !ok || i >= len(t) {
		return
	}
	d.hour = h
	sep := t[i]
	if i++; i < len(t) {
		d.min, _ = part()
	}
	if i < len(t) && t[i] == sep {
		i++
		d.sec, _ = part()
		if i < len(t) && (t[i] == '.' || t[i] == ',') {
			i++
			n := digits(t[i:])
			frac := (t[i:i+n] + "000000000")[:9]
			d.nsec = atoi(frac[:3])*1e6 + atoi(frac[3:6])*1e3 + atoi(frac[6:])
			i += n
		}
	}
	if i < len(t) {
		d.token(t[i:])
	}
}

// offset reads +0100, -800, +1 and +01:00.
func (d *dateParser) offset(t string) {
	if d.haveZone && d.zone != 0 {
		return
	}
	sign := 1
	if t[0] == '-' {
		sign = -1
	}
	t = t[1:]
	if t == "" || t[0] == '-' || t[0] == '+' {
		return
	}
	n := digits(t)
	v := atoi(t[:n])
	if n < len(t) && t[n] == ':' {
		v = v*100 + atoi(t[n+1:])
	} else if n <= 2 {
		v *= 100
	}
	if n > 6 {
		return
	}
	d.zone, d.haveZone = sign*(v/100*3600+v%100*60), true
}

func (d *dateParser) number(t string) {
	n := digits(t)
	if n < len(t) {
		// 12-Nov-2001, 2001-11-12, 12/11/2001, 12.11.2001, 12th, 20h
		if i := strings.IndexAny(t, "-/."); i == n {
			parts := strings.FieldsFunc(t, func(r rune) bool { return r == '-' || r == '/' || r == '.' })
			if len(parts) >= 3 && digits(parts[0]) == len(parts[0]) {
				d.dashed(parts)
				return
			}
			if len(parts) == 2 && monthOf(parts[1]) != 0 {
				d.numbers = append(d.numbers, parts[0])
				d.take(parts[0])
				d.month = monthOf(parts[1])
				return
			}
		}
		if m := monthOf(t[n:]); m != 0 && d.month == 0 {
			d.month = m
		}
	}
	if n == 4 && n == len(t) && d.year >= 0 && d.hour >= 0 && !d.haveZone {
		d.offset("+" + t) // the sign is missing
		return
	}
	if n == 8 && d.day < 0 && n == len(t) { // 20011231
		d.year, d.month, d.day = atoi(t[:4]), time.Month(atoi(t[4:6])), atoi(t[6:])
		return
	}
	d.take(t[:n])
}

// take gives a bare number its meaning by size and by what is still open.
func (d *dateParser) take(t string) {
	v := atoi(t)
	switch {
	case len(t) >= 3 && d.year < 0:
		d.year = v
		if len(t) == 3 {
			d.year += 1900 // 100 for 2000: a broken localtime()
		}
	case d.day < 0 && v >= 1 && v <= 31:
		d.day = v
	case d.year < 0 && len(t) <= 2:
		d.year = shortYear(v)
	}
}

func shortYear(v int) int {
	// RFC 5322 §4.3, with CPython's pivot of 69.
	if v < 69 {
		return v + 2000
	}
	return v + 1900
}

func (d *dateParser) dashed(p []string) {
	if d.day >= 0 && d.year >= 0 {
		return
	}
	if len(p[0]) == 4 { // ISO: year first
		d.year, d.month, d.day = atoi(p[0]), time.Month(atoi(p[1])), atoi(p[2])
		return
	}
	m := monthOf(p[1])
	day, month := atoi(p[0]), atoi(p[1])
	if m == 0 {
		if month > 12 { // 11/25/2001
			day, month = month, day
		}
		m = time.Month(month)
	}
	d.day, d.month = day, m
	if n := digits(p[2]); n > 2 {
		d.year = atoi(p[2])
	} else if n > 0 {
		d.year = shortYear(atoi(p[2]))
	}
}

func (d *dateParser) word(t string) {
	t = strings.TrimRight(t, ".")
	if m := monthOf(t); m != 0 && d.month == 0 {
		d.month = m
		// "Nov-12-2001", "Nov12"
		if i := strings.IndexAny(t, "0123456789"); i > 0 {
			for _, p := range strings.FieldsFunc(t[i:], func(r rune) bool { return r == '-' || r == '/' }) {
				d.take(p[:digits(p)])
			}
		}
		return
	}
	if strings.EqualFold(t, "AM") {
		d.afternoon = 1
		return
	}
	if strings.EqualFold(t, "PM") {
		d.afternoon = 2
		return
	}
	if d.hour < 0 || d.haveZone {
		return
	}
	// GMT+0200, UTC-3
	if i := strings.IndexAny(t, "+-"); i > 0 && i < len(t)-1 {
		d.offset(t[i:])
		return
	}
	if z, ok := zones[strings.ToUpper(t)]; ok {
		d.zone, d.haveZone = z*36, true // hhmm without odd minutes
		if strings.EqualFold(t, "NST") {
			d.zone = -(3*3600 + 1800)
		}
	}
}

// zones are those of RFC 5322 §4.3 and the unambiguous ones of Europe and the
// Far East, as hundredths of an hour east. Military letters are -0000, since
// RFC 822 had their sign wrong.
var zones = map[string]int{
	"UT": 0, "UTC": 0, "GMT": 0, "Z": 0, "WET": 0,
	"AST": -400, "ADT": -300, "EST": -500, "EDT": -400, "CST": -600, "CDT": -500,
	"MST": -700, "MDT": -600, "PST": -800, "PDT": -700, "AKST": -900, "AKDT": -800, "HST": -1000,
	"WEST": 100, "CET": 100, "MET": 100, "MEZ": 100, "CEST": 200, "MEST": 200, "MESZ": 200, "BST": 100,
	"EET": 200, "EEST": 300, "MSK": 300, "MSD": 400, "HKT": 800, "JST": 900, "KST": 900, "NZST": 1200, "NZDT": 1300,
	"NST": -350,
}

const months = "janfebmaraprmayjunjulaugsepoctnovdec"

// monthOf reads a month's English name from its first three letters.
func monthOf(t string) time.Month {
	if len(t) < 3 {
		return 0
	}
	// "Mars" and "Market" are not told apart; only letters of the full name
	// or a break may follow.
	at := [3]byte{t[0] | 0x20, t[1] | 0x20, t[2] | 0x20}
	for i := 0; i < len(months); i += 3 {
		if months[i] == at[0] && months[i+1] == at[1] && months[i+2] == at[2] {
			return time.Month(i/3 + 1)
		}
	}
	return 0
}

func (d *dateParser) time() (time.Time, bool) {
	if d.day < 1 || d.month < 1 || d.month > 12 || d.year < 0 {
		return time.Time{}, false
	}
	if d.year < 100 {
		d.year = shortYear(d.year)
	}
	if d.hour < 0 {
		d.hour = 0
	}
	if d.afternoon == 2 && d.hour < 12 {
		d.hour += 12
	}
	if d.afternoon == 1 && d.hour == 12 {
		d.hour = 0
	}
	if d.hour > 24 || d.min > 59 || d.sec > 61 || d.day > 31 || d.year > 9999 {
		return time.Time{}, false
	}
	if d.zone <= -24*3600 || d.zone >= 24*3600 {
		d.zone = 0
	}
	loc := time.UTC
	if d.zone != 0 {
		loc = time.FixedZone("", d.zone)
	}
	t := time.Date(d.year, d.month, d.day, d.hour, d.min, d.sec, d.nsec, loc)
	// 31 June is no day; a leap second is the next minute's first.
	if d.day > 28 && d.sec < 60 && d.hour < 24 && t.Day() != d.day {
		return time.Time{}, false
	}
	return t, true
}
