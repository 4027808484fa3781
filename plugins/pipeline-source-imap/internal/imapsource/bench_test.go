package imapsource

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/dovecot"
)

// BenchmarkFetch compares Source.Fetch with a plain socket that reads the same
// FETCH and throws it away: what the server itself can give. The bodies are
// read to their end. Run it with -benchtime 5x.
func BenchmarkFetch(b *testing.B) {
	for _, kind := range []struct {
		name  string
		count int
		size  func(*rand.Rand) int
	}{
		{"20000 of 4 KB", 20_000, func(*rand.Rand) int { return 4 << 10 }},
		{"10000 of 80 KB mixed", 10_000, func(r *rand.Rand) int {
			if r.IntN(10) < 8 {
				return 2000 + r.IntN(10_000)
			}
			return r.IntN(800_000)
		}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			d := dovecot.Start(b, dovecot.Options{})
			r := rand.New(rand.NewPCG(1, 2))
			for i := range kind.count {
				raw := sampleMail(i)
				for n := kind.size(r); len(raw) < n; {
					raw = append(raw, "Lorem ipsum dolor sit amet, consectetur adipisici elit, sed eiusmod.\r\n"...)
				}
				d.Deliver("alice", "INBOX", raw, sampleDate)
			}
			b.Run("plain socket", func(b *testing.B) {
				defer cpu(b)()
				for b.Loop() {
					n, err := drain(d.IMAP)
					if err != nil {
						b.Fatal(err)
					}
					b.SetBytes(n)
				}
			})
			c := plainConfig(d.IMAP)
			for _, lanes := range []int{1, 2} {
				c.Connections = lanes
				s := openSource(b, c)
				b.Run(fmt.Sprintf("source, %d lanes", lanes), func(b *testing.B) {
					b.ReportAllocs()
					ids := idsOf(list(b, s, source.ListRequest{Mailbox: "INBOX"}))
					defer cpu(b)()
					for b.Loop() {
						b.SetBytes(fetchAll(b, s, ids, lanes))
					}
				})
			}
			s := openSource(b, c)
			b.Run("list ids", func(b *testing.B) {
				for b.Loop() {
					list(b, s, source.ListRequest{Mailbox: "INBOX"})
				}
			})
			b.Run("list size, date, flags", func(b *testing.B) {
				for b.Loop() {
					list(b, s, source.ListRequest{Mailbox: "INBOX", Needs: message.NeedSize | message.NeedInternalDate | message.NeedFlags})
				}
			})
			b.Run("list headers", func(b *testing.B) {
				for b.Loop() {
					list(b, s, source.ListRequest{Mailbox: "INBOX", Needs: message.NeedHeaders})
				}
			})
		})
	}
}

// cpu reports the processor time of this process, which says more than the
// clock when the machine has other work: the server's share isn't in it.
func cpu(b *testing.B) func() {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	return func() { b.ReportMetric(float64((used()-start).Microseconds())/1000/float64(b.N), "cpu-ms/op") }
}

func fetchAll(b testing.TB, s *Source, ids []message.ID, lanes int) int64 {
	total, errs := make(chan int64, lanes), make(chan error, lanes)
	for lane := range lanes {
		part := ids[len(ids)*lane/lanes : len(ids)*(lane+1)/lanes]
		go func() {
			var n int64
			buf := make([]byte, 64<<10)
			for got, err := range s.Fetch(b.Context(), source.FetchRequest{Mailbox: "INBOX", Needs: message.NeedBody, IDs: batches(part, 200)}) {
				if err == nil {
					err = got.Err
				}
				if err != nil {
					errs <- err
					break
				}
				m, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{got.Message.Body}, buf)
				if err != nil {
					errs <- err
				}
				n += m
			}
			total <- n
		}()
	}
	var sum int64
	for range lanes {
		sum += <-total
	}
	select {
	case err := <-errs:
		b.Fatal(err)
	default:
	}
	return sum
}

func drain(at string) (int64, error) {
	c, err := net.Dial("tcp", at)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	r := bufio.NewReaderSize(c, 256<<10)
	fmt.Fprintf(c, "a LOGIN alice %s\r\nb EXAMINE INBOX\r\nc UID FETCH 1:* (UID BODY.PEEK[])\r\n", dovecot.Password)
	var total int64
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return total, err
		}
		if bytes.HasPrefix(line, []byte("c ")) {
			return total, nil
		}
		open := bytes.LastIndexByte(line, '{')
		if open < 0 || !bytes.HasSuffix(line, []byte("}\r\n")) {
			continue
		}
		n, err := strconv.Atoi(string(line[open+1 : len(line)-3]))
		if err != nil {
			return total, err
		}
		if _, err := r.Discard(n); err != nil {
			return total, err
		}
		total += int64(n)
	}
}
