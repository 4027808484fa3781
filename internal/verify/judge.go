package verify

import "strings"

// judge says what is missing, once all has been read.
func (v *verifier) judge() {
	for n := range v.table.items {
		v.judgeItem(int32(n))
	}
	for _, k := range v.sinks {
		v.brokenLines(k)
	}
}

// judgeItem looks at one message in all places. What is wrong with it at one
// place is told once: a message that the ledger lost isn't extra in each sink.
func (v *verifier) judgeItem(n int32) {
	it := &v.table.items[n]
	var has []string
	for _, k := range v.sinks {
		if int(n) >= len(k.rows) || k.gone {
			continue
		}
		r := &k.rows[n]
		if !r.written && (r.row || r.line) {
			has = append(has, k.plan.Name)
		}
		if r.written {
			v.judgeRow(k, n, r)
		}
	}
	if len(has) > 0 {
		what := "the ledger doesn't know the message that "
		if it.known {
			what = "the ledger doesn't say that it was written to "
		}
		if !it.known {
			v.found(n, Finding{Kind: Missing, Place: InLedger}, "%s%s has", what, strings.Join(has, " and "))
		} else {
			v.found(n, Finding{Kind: Missing, Place: InLedger}, "%s%s, which has it", what, strings.Join(has, " and "))
		}
	}
	if it.head != 0 && it.line != 0 && it.head != it.line {
		for _, k := range v.sinks {
			if int(n) < len(k.rows) && k.rows[n].line && !k.rows[n].bad {
				v.found(n, Finding{Kind: Changed, Place: Index, Sink: k.plan.Name}, "its line tells another subject, sender or Message-ID than the mail")
			}
		}
	}
}

// judgeRow looks at a message that the ledger says a sink has.
func (v *verifier) judgeRow(k *kept, n int32, r *row) {
	at := Finding{Kind: Missing, Sink: k.plan.Name}
	if k.plan.Prepared.Record {
		if !r.line && !r.stale {
			at.Place = Index
			v.found(n, at, "the index has no line of it")
		}
		return
	}
	if r.told == 0 {
		return // a sink that gives no receipts
	}
	switch {
	case !r.seen && !r.row && !k.bare:
		at.Place = Output
		v.found(n, at, "neither the file nor its row of the manifest is there")
	case !r.seen:
		at.Place = Output
		v.found(n, at, "the file isn't there")
	case !r.row && !k.bare:
		at.Place = Manifest
		v.found(n, at, "the manifest has no row of it")
	case r.row && r.listed != r.told:
		at.Place, at.Kind = Manifest, Changed
		v.found(n, at, "the manifest and the ledger name different files")
	}
}

// brokenLines tells of lines that can't be read: beside the messages that lack
// a line, when there are any, since it is theirs.
func (v *verifier) brokenLines(k *kept) {
	place := Manifest
	if k.plan.Prepared.Record {
		place = Index
	}
	rest := k.broken
	for i := range v.findings {
		f := &v.findings[i]
		if len(rest) == 0 {
			return
		}
		if f.Kind == Missing && f.Place == place && f.Sink == k.plan.Name && f.item >= 0 {
			f.Kind = Changed
			f.Text = lineText(rest[0])
			rest = rest[1:]
		}
	}
	for _, b := range rest {
		v.found(-1, Finding{Kind: Changed, Place: place, Sink: k.plan.Name}, "%s", lineText(b))
	}
}
