package popsource

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/popscript"
)

const (
	largeSize = 200 << 20
	// largeEnv makes this test binary a process that fetches from a server.
	largeEnv = "POPSOURCE_FETCH_LARGE"
)

// largePiece is a piece of the large message: lines with dots at all places.
var largePiece = strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef01234567\r\n.\r\n..x\r\n", 1<<14)

// TestLargeMessage: a message of 200 MB comes whole through a process of its
// own that stays far below 100 MiB (I5).
func TestLargeMessage(t *testing.T) {
	t.Parallel()
	head := "Subject: large\r\n\r\n"
	pieces := largeSize / len(largePiece)
	want := sha256.New()
	io.WriteString(want, head)
	for range pieces {
		io.WriteString(want, largePiece)
	}
	server := popscript.Start(t, popscript.Script{
		Messages: []popscript.Message{{UIDL: "small", Raw: sample(1)}, {UIDL: "large", Raw: "x", Size: len(head) + pieces*len(largePiece)}, {UIDL: "after", Raw: sample(2)}},
		Command: func(c *popscript.Conn, verb, args string) bool {
			if verb != "RETR" || args != "2" {
				return false
			}
			stuffed := strings.TrimSuffix(popscript.Stuff(largePiece), ".\r\n")
			c.Write("+OK\r\n%s", head)
			for range pieces {
				c.Write("%s", stuffed)
			}
			c.Write(".\r\n")
			return true
		}})
	cmd := exec.Command(os.Args[0], "-test.run=^TestLargeFetcher$", "-test.v")
	cmd.Env = append(os.Environ(), largeEnv+"="+server.Addr)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var sum string
	peak := 0
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, "large: "); ok {
			fmt.Sscan(rest, &sum, &peak)
		}
	}
	if sum != fmt.Sprintf("%x", want.Sum(nil)) {
		t.Errorf("the octets differ\n%s", out)
	}
	t.Logf("%d octets, peak memory %d KiB", len(head)+pieces*len(largePiece), peak)
	if peak == 0 || peak > memoryLimit {
		t.Errorf("peak memory is %d KiB, want at most %d", peak, memoryLimit)
	}
}

// TestLargeFetcher is the process that fetches, started by TestLargeMessage;
// by itself it has nothing to do.
func TestLargeFetcher(t *testing.T) {
	address := os.Getenv(largeEnv)
	if address == "" {
		return
	}
	c := plainConfig(address)
	c.Timeouts = mailnet.Timeouts{Read: time.Minute}
	s := openSource(t, c)
	count := 0
	for got, err := range s.Fetch(t.Context(), source.FetchRequest{Mailbox: inbox, Needs: message.NeedBody | message.NeedHeaders, IDs: func(yield func([]message.ID) bool) {
		yield(idsOf(list(t, s, source.ListRequest{})))
	}}) {
		if err != nil || got.Err != nil {
			t.Fatal(err, got.Err)
		}
		h := sha256.New()
		if _, err := io.CopyBuffer(h, struct{ io.Reader }{got.Message.Body}, make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
		if count++; got.ID.UIDL == "large" {
			fmt.Printf("large: %x %d\n", h.Sum(nil), peakMemory(t))
		}
	}
	if count != 3 {
		t.Errorf("%d messages, want 3", count)
	}
}

// peakMemory returns the largest resident size of this process so far, in KiB.
func peakMemory(t *testing.T) int {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(rest, " kB")))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no VmHWM in /proc/self/status")
	return 0
}
