package cost

import (
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
)

// TestParses: that the number is true, for messages of one part and of many.
func TestParses(t *testing.T) {
	leaf := "Content-Type: text/plain\r\n\r\ntext"
	mail := "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + leaf + "\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n" + leaf + "\r\n--b--\r\n"
	for name, tc := range map[string]struct {
		f    func() error
		want int64
	}{
		"nothing": {func() error { return nil }, 0},
		"as a stream": {func() error {
			_, _, err := message.ReadStructure(strings.NewReader(mail))
			return err
		}, 1},
		"twice": {func() error {
			for _, text := range []string{mail, leaf} {
				if _, _, err := message.Read(strings.NewReader(text), int64(len(text))); err != nil {
					return err
				}
			}
			return nil
		}, 2},
		"a body that keeps it": {func() error {
			whole, err := message.BodyOf([]byte(mail)).Whole(t.Context())
			if err != nil {
				return err
			}
			_, _, err = whole.Measure()
			if err == nil {
				_, _, err = whole.Entities()
			}
			return err
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := Parses(func() {
				if err := tc.f(); err != nil {
					t.Fatal(err)
				}
			})
			if got != tc.want {
				t.Errorf("%d, want %d", got, tc.want)
			}
		})
	}
}
