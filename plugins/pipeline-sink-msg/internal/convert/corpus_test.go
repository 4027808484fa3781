package convert_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/convert"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/msgtest"
)

// corpus returns the files of a folder of the corpus that MAILHAUL_CORPUS names.
func corpus(t *testing.T, folder string) []string {
	t.Helper()
	root := os.Getenv("MAILHAUL_CORPUS")
	if root == "" {
		t.Skip("MAILHAUL_CORPUS isn't set")
	}
	files, err := filepath.Glob(filepath.Join(root, folder, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in %s/%s: %v", root, folder, err)
	}
	return files
}

// write converts a mail and returns the .msg.
func write(c *convert.Converter, mail []byte, env convert.Envelope) ([]byte, error) {
	if err := c.Convert(bytes.NewReader(mail), int64(len(mail)), env); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	n, err := c.WriteTo(&out)
	if err == nil && (n != int64(out.Len()) || n != c.Size()) {
		err = fmt.Errorf("%d octets written, WriteTo says %d, Size %d", out.Len(), n, c.Size())
	}
	return out.Bytes(), err
}

// TestCorpusConverts converts every mail twice: each gives a .msg that keeps
// the rules, and the same one again. MAILHAUL_MSG_OUT names a folder that the
// files are left in, for other judges than TestJudge.
func TestCorpusConverts(t *testing.T) {
	t.Parallel()
	keep := os.Getenv("MAILHAUL_MSG_OUT")
	c, again := convert.New(convert.Options{}), convert.New(convert.Options{})
	for _, file := range corpus(t, "eml") {
		mail, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".eml")
		msg, err := write(c, mail, convert.Envelope{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if keep != "" {
			if err := os.WriteFile(filepath.Join(keep, name+".msg"), msg, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		o, err := msgtest.Read(bytes.NewReader(msg))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, f := range append(o.Findings, msgtest.Mail(o)...) {
			t.Errorf("%s: %s", name, f)
		}
		if twin, err := write(again, mail, convert.Envelope{}); err != nil || !bytes.Equal(msg, twin) {
			t.Errorf("%s: the second time it gives another file (%v)", name, err)
		}
	}
}

// TestHostileFiles gives the converter what isn't mail at all: a .msg that
// keeps the rules or a dead letter, in time.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	c := convert.New(convert.Options{RTF: true})
	for _, file := range corpus(t, "hostile") {
		mail, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		msg, err := write(c, mail, convert.Envelope{})
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: took %v", filepath.Base(file), took)
		}
		if err != nil {
			if !fault.Is(err, fault.Message) {
				t.Errorf("%s: %v is no dead letter", filepath.Base(file), err)
			}
			continue
		}
		o, err := msgtest.Read(bytes.NewReader(msg))
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
			continue
		}
		for _, f := range append(o.Findings, msgtest.Mail(o)...) {
			t.Errorf("%s: %s", filepath.Base(file), f)
		}
	}
}
