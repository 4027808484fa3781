package report

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
)

// csvHeader is the first row of accounts.csv.
var csvHeader = []string{
	"source", "state", "mailboxes", "server_count", "listed", "done_before", "written", "dropped", "duplicates", "unrouted",
	"dead_letters", "vanished", "pending", "standing_dead_letters", "octets", "blind_spots", "until", "error", "hint",
}

// CSV writes a row for each account (RFC 4180).
func CSV(w io.Writer, r *Report) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	if err := out.Write(csvHeader); err != nil {
		return err
	}
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	for i := range r.Accounts {
		a := &r.Accounts[i]
		server, blind, boxes := "", 0, 0
		if a.Sum.Server != nil {
			server = n(*a.Sum.Server)
		}
		for _, m := range a.Mailboxes {
			blind += len(m.BlindSpots)
			if m.State != "excluded" {
				boxes++
			}
		}
		if err := out.Write([]string{
			cell(a.Source), a.State, strconv.Itoa(boxes), server, n(a.Sum.Listed), n(a.Sum.DoneBefore), n(a.Sum.Written), n(a.Sum.AllDropped()),
			n(a.Sum.Duplicates), n(a.Sum.Unrouted), n(a.Sum.DeadLetters), n(a.Sum.Vanished), n(a.Sum.Pending), n(a.Sum.Standing),
			n(a.Sum.Octets), strconv.Itoa(blind), a.Until, cell(a.Error), cell(a.Hint),
		}); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// cell keeps a spreadsheet from taking a server's words for a formula.
func cell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
