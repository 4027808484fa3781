package popsource

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/popscript"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// BenchmarkFetch compares Source.Fetch with a plain socket that sends all its
// RETRs ahead and throws the answers away: what the server itself can give.
// The bodies are read to their end. Run it with -benchtime 5x.
func BenchmarkFetch(b *testing.B) {
	for _, kind := range []struct {
		name  string
		count int
		size  func(*rand.Rand) int
	}{
		{"20000 of 4 KB", 20_000, func(*rand.Rand) int { return 4 << 10 }},
		{"4000 of 80 KB mixed", 4_000, func(r *rand.Rand) int {
			if r.IntN(10) < 8 {
				return 2000 + r.IntN(10_000)
			}
			return r.IntN(800_000)
		}},
		{"20 of 25 MB", 20, func(*rand.Rand) int { return 25 << 20 }},
	} {
		b.Run(kind.name, func(b *testing.B) {
			d := dovecot.Start(b, dovecot.Options{})
			r := rand.New(rand.NewPCG(1, 2))
			for i := range kind.count {
				raw := []byte(sample(i))
				for n := kind.size(r); len(raw) < n; {
					raw = append(raw, "Lorem ipsum dolor sit amet, consectetur adipisici elit, sed eiusmod.\r\n"...)
				}
				d.Deliver("alice", "INBOX", raw, sampleDate)
			}
			b.Run("plain socket", func(b *testing.B) {
				defer cpu(b)()
				for b.Loop() {
					n, err := drain(d.POP3)
					if err != nil {
						b.Fatal(err)
					}
					b.SetBytes(n)
				}
			})
			c := plainConfig(d.POP3)
			for _, lanes := range []int{1, 2} {
				c.Connections = lanes
				b.Run(fmt.Sprintf("source, %d sessions", lanes), func(b *testing.B) {
					b.ReportAllocs()
					defer cpu(b)()
					for b.Loop() { // with the login and the listing, as the plain socket
						s := openSource(b, c)
						b.SetBytes(fetchAll(b, s, idsOf(list(b, s, source.ListRequest{})), lanes))
						s.Close()
					}
				})
			}
			c.Connections = 1
			s := openSource(b, c)
			b.Run("list ids and sizes", func(b *testing.B) {
				for b.Loop() {
					list(b, s, source.ListRequest{Needs: message.NeedSize})
				}
			})
			b.Run("list headers", func(b *testing.B) {
				for b.Loop() {
					list(b, s, source.ListRequest{Needs: message.NeedHeaders})
				}
			})
		})
	}
}

// BenchmarkRoundTrips fetches 200 messages over a link of 20 ms, with commands
// ahead and one at a time.
func BenchmarkRoundTrips(b *testing.B) {
	for _, way := range []struct {
		name string
		capa []string
	}{{"pipelined", []string{"UIDL", "PIPELINING"}}, {"one at a time", []string{"UIDL"}}} {
		b.Run(way.name, func(b *testing.B) {
			server := popscript.Start(b, popscript.Script{CAPA: way.capa, Messages: samples(200)})
			p := wireproxy.Start(b, server.Addr)
			p.Delay(20 * time.Millisecond)
			s := openSource(b, plainConfig(p.Addr))
			ids := idsOf(list(b, s, source.ListRequest{}))
			for b.Loop() {
				fetchAll(b, s, ids, 1)
			}
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
			for got, err := range s.Fetch(b.Context(), source.FetchRequest{Mailbox: inbox, Needs: message.NeedBody, IDs: slices.Chunk(part, 200)}) {
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
					break
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

// drain is a session that knows nothing but how to be fast.
func drain(at string) (total int64, err error) {
	c, err := net.Dial("tcp", at)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	r := bufio.NewReaderSize(c, 256<<10)
	ok := func() []byte {
		line, e := r.ReadSlice('\n')
		if e == nil && !bytes.HasPrefix(line, []byte("+OK")) {
			e = errors.New(string(line))
		}
		err = errors.Join(err, e)
		return line
	}
	multi := func() {
		for bol := true; err == nil; {
			line, e := r.ReadSlice('\n')
			if e != nil && !errors.Is(e, bufio.ErrBufferFull) {
				err = e
				return
			}
			if bol && line[0] == '.' {
				if len(line) == 3 {
					return
				}
				line = line[1:]
			}
			bol = e == nil
			total += int64(len(line))
		}
	}
	fmt.Fprintf(c, "USER alice\r\nPASS %s\r\nSTAT\r\nUIDL\r\n", dovecot.Password)
	ok()
	ok()
	ok()
	f := bytes.Fields(ok())
	if err != nil || len(f) < 2 {
		return 0, fmt.Errorf("%w: %q", err, f)
	}
	n, err := strconv.Atoi(string(f[1]))
	if err != nil {
		return 0, err
	}
	ok()
	multi()
	total = 0
	go func() {
		w := bufio.NewWriterSize(c, 8<<10)
		for i := range n {
			fmt.Fprintf(w, "RETR %d\r\n", i+1)
		}
		_ = w.Flush()
	}()
	for range n {
		ok()
		multi()
	}
	return total, err
}
