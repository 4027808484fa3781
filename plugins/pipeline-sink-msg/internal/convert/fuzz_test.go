package convert_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/convert"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/msgtest"
)

// FuzzConvert: whatever the octets, there is a .msg that keeps the rules, twice
// the same, or a dead letter.
func FuzzConvert(f *testing.F) {
	for _, s := range samples() {
		f.Add([]byte(s.mail), false)
		f.Add([]byte(s.mail), true)
	}
	f.Fuzz(func(t *testing.T, mail []byte, other bool) {
		env := convert.Envelope{HaveFlags: other, Flags: []string{`\Answered`, `\Draft`, `\Flagged`}}
		if other {
			env.InternalDate = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
		}
		c := convert.New(convert.Options{RTF: other, UTF8: other})
		msg, err := write(c, mail, env)
		if err != nil {
			if !fault.Is(err, fault.Message) {
				t.Fatal(err)
			}
			return
		}
		o, err := msgtest.Read(bytes.NewReader(msg))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range append(o.Findings, msgtest.Mail(o)...) {
			t.Error(f)
		}
		if again, err := write(c, mail, env); err != nil || !bytes.Equal(again, msg) {
			t.Errorf("the second time it gives another file: %v", err)
		}
	})
}
