package expression_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/pkg/message"
)

func TestConditions(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 15, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		text   string
		negate bool
		want   []string
	}{
		{`date >= now() - days(365) && size < 25 * MB`, false, []string{"size < 25000000", "date >= 2025-11-20 15:00"}},
		{`date("2024-01-31") > internal_date`, false, []string{"internal_date < 2024-02-01 00:00"}},
		{`date <= date("2024-01-31T12:00:00+02:00") + hours(2)`, false, []string{"date <= 2024-02-01 12:00"}},
		{`size > 1.5 * MB and 10 <= size`, false, []string{"size > 1500000", "size >= 10"}},
		{`size > 1.3`, false, nil},
		{`seen && !flagged && not ("\\Answered" in flags)`, false, []string{`flags has \Seen`, `flags lacks \Flagged`, `flags lacks \Answered`}},
		{`"\\seen" in flags && "$Junk" in keywords`, false, nil},
		{`seen || size > 5`, false, nil},
		{`seen || size > 5`, true, []string{"size <= 5", `flags lacks \Seen`}},
		{`seen && size > 5`, true, nil},
		{`size > uid`, false, nil},
		{`date > internal_date`, false, nil},
		{`size == 5`, false, nil},
		{`mailbox == "x" && recent`, false, nil},
		{`!(size >= 5)`, false, []string{"size < 5"}},
	} {
		p, err := expression.Compile(tt.text, expression.Options{Negate: tt.negate})
		if err != nil {
			t.Fatalf("%s: %v", tt.text, err)
		}
		var got []string
		for _, term := range p.Terms {
			if c, ok := term.Condition(now); ok {
				got = append(got, c.String())
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (negated: %v): %s", tt.text, tt.negate, diff)
		}
	}
}

// What fails a condition fails its term, wherever the message's clock stood.
func TestConditionsRefuseNothingThatTermsKeep(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 15, 0, 0, 0, time.UTC)
	p, err := expression.Compile(`internal_date >= date("2024-01-31") && internal_date < date("2024-02-02")`, expression.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for hour := -100; hour < 200; hour++ {
		for _, zone := range []int{-12, 0, 14} {
			at := time.Date(2024, 1, 31, hour, 0, 0, 0, time.UTC).In(time.FixedZone("", zone*3600))
			sum := &message.Summary{Have: message.NeedInternalDate, InternalDate: at}
			for _, term := range p.Terms {
				c, ok := term.Condition(now)
				if !ok {
					t.Fatal("no condition")
				}
				// A server compares days of the message's own zone.
				day := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
				bound := c.Time.UTC().Truncate(24 * time.Hour)
				refused := c.Op == ">=" && day.Before(bound) || c.Op == "<" && day.After(bound)
				if keeps, _, err := term.Eval(sum, now); err != nil || refused && keeps {
					t.Errorf("%s is kept by the term, and refused by %s (%v)", at, c, err)
				}
			}
		}
	}
}
