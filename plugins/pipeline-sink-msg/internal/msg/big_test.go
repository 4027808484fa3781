package msg_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/msg"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/msgtest"
)

// In a child process these name the target and the size of the attachment.
const (
	childTarget = "MSG_TEST_TARGET"
	childBlocks = "MSG_TEST_BLOCKS"
)

// blockOctets is what a block of a big attachment has: whole lines of base64.
const blockOctets = 57 * 1000

// maxRSS is the most memory that a process may have had, in KiB.
const maxRSS = 64 << 10

// block returns the octets of a block, and their lines.
func block() (octets []byte, lines string) {
	octets = make([]byte, blockOctets)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(octets) // it never fails
	var b strings.Builder
	for i := 0; i < len(octets); i += 57 {
		b.WriteString(base64.StdEncoding.EncodeToString(octets[i:i+57]) + "\r\n")
	}
	return octets, b.String()
}

// bigMail is a mail with an attachment of so many blocks.
func bigMail(blocks int) io.Reader {
	_, lines := block()
	parts := []io.Reader{strings.NewReader("From: a@b.c\r\nSubject: big\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nbig\r\n--b\r\nContent-Type: application/octet-stream; name=big.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n")}
	for range blocks {
		parts = append(parts, strings.NewReader(lines))
	}
	return io.MultiReader(append(parts, strings.NewReader("--b--\r\n"))...)
}

// TestBigAttachments writes attachments around the first DIFAT sector and far
// beyond, each in a process of its own: the octets are right and the process
// never had 64 MiB (I5).
func TestBigAttachments(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Log("peak memory is only known on Linux: the octets alone are checked")
	}
	sizes := []int{6_700_000, 7_000_000, 70_000_000, 500_000_000}
	if underRace {
		sizes = sizes[:3] // the plain run, which comes first, has them all
	}
	for _, size := range sizes {
		t.Run(fmt.Sprintf("%.1f MB", float64(size)/1e6), func(t *testing.T) {
			blocks := size / blockOctets
			root := t.TempDir()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBigChild$")
			cmd.Env = append(os.Environ(), childTarget+"="+root, childBlocks+"="+strconv.Itoa(blocks), "TMPDIR="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			rss := 0
			if _, err := fmt.Sscanf(string(out), "peak %d", &rss); err != nil && runtime.GOOS == "linux" {
				t.Fatalf("the process said %q", out)
			}
			t.Logf("%d octets: peak RSS %d KiB", blocks*blockOctets, rss)
			if rss > maxRSS {
				t.Errorf("peak RSS %d KiB, the bound is %d", rss, maxRSS)
			}
			checkBig(t, root, blocks)
		})
	}
}

func checkBig(t *testing.T, root string, blocks int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "INBOX", "*.msg"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	f, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	o, err := msgtest.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range o.Findings {
		t.Error(f)
	}
	octets, _ := block()
	sum := sha256.New()
	for range blocks {
		sum.Write(octets)
	}
	if a := o.Attachments[0]; a.Sums[0x37010102] != hex.EncodeToString(sum.Sum(nil)) || a.Sizes[0x37010102] != int64(blocks)*blockOctets {
		t.Errorf("the attachment came back wrong: %d octets", a.Sizes[0x37010102])
	}
}

// TestBigChild is the process that is measured. It does nothing by itself.
func TestBigChild(t *testing.T) {
	root := os.Getenv(childTarget)
	if root == "" {
		return // it runs as a process of TestBigAttachments
	}
	blocks, err := strconv.Atoi(os.Getenv(childBlocks))
	if err != nil {
		t.Fatal(err)
	}
	s, err := msg.Open(t.Context(), config(root), sink.State{Name: "outlook", Pipeline: "p1"})
	if err != nil {
		t.Fatal(err)
	}
	body := message.NewBody(bigMail(blocks), -1, nil)
	defer body.Release()
	if _, err := s.Write(t.Context(), of(1, body)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("peak %d\n", peak(t))
}

// peak returns the most memory that this process has had, in KiB.
func peak(t *testing.T) int {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0 // not Linux
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		n := 0
		if _, err := fmt.Sscanf(s.Text(), "VmHWM: %d kB", &n); err == nil {
			return n
		}
	}
	t.Fatal("/proc/self/status has no VmHWM")
	return 0
}
