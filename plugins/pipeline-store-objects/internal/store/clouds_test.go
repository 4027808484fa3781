//go:build clouds

package store_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/target"
)

// clouds are Google's and Azure's storage, as fake-gcs-server and Azurite
// speak them: make stores installs both.
var clouds = []string{"Google", "Azure"}

// The account that every Azurite has.
const (
	azureAccount = "devstoreaccount1"
	azureKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// emulator is one of them, with a proxy before it: the one address that the
// SDKs find in the environment is of the whole process.
type emulator struct {
	proxy *httptest.Server
	stop  func()

	mu     sync.Mutex
	mishap func(*http.Request) bool // true: it was answered, or shan't be
	refuse func(http.ResponseWriter)
}

var emulators = map[string]*emulator{}

// withClouds runs the tests beside the emulators.
func withClouds(run func() int) int {
	root, err := filepath.Abs("../../../../bin/tools")
	if err != nil {
		panic(err)
	}
	google := start(func(port, proxy string) *exec.Cmd {
		return exec.Command(filepath.Join(root, "fake-gcs-server"), "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "memory", "-log-level", "error",
			"-public-host", proxy, "-external-url", "http://"+proxy)
	}, func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"error":{"code":429,"message":"Please reduce your request rate.","errors":[{"reason":"rateLimitExceeded"}]}}`)
	})
	defer google.stop()
	azure := start(func(port, _ string) *exec.Cmd {
		return exec.Command("node", filepath.Join(root, "azurite/node_modules/azurite/dist/src/blob/main.js"),
			"--blobHost", "127.0.0.1", "--blobPort", port, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent")
	}, func(w http.ResponseWriter) {
		w.Header().Set("x-ms-error-code", "ServerBusy")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	defer azure.stop()
	emulators["Google"], emulators["Azure"] = google, azure
	for name, value := range map[string]string{
		"STORAGE_EMULATOR_HOST": strings.TrimPrefix(google.proxy.URL, "http://"),
		"AZURE_STORAGE_ACCOUNT": azureAccount, "AZURE_STORAGE_KEY": azureKey,
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	return run()
}

// start starts an emulator and waits until it answers.
func start(command func(port, proxy string) *exec.Cmd, refuse func(http.ResponseWriter)) *emulator {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	address := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(address)
	e := &emulator{refuse: refuse}
	to := &url.URL{Scheme: "http", Host: address}
	reverse := httputil.NewSingleHostReverseProxy(to)
	reverse.Transport = &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	reverse.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	e.proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		mishap := e.mishap
		e.mu.Unlock()
		if mishap != nil && mishap(r) {
			_, _ = io.Copy(io.Discard, r.Body)
			if rand.N(2) == 0 {
				panic(http.ErrAbortHandler)
			}
			e.refuse(w)
			return
		}
		reverse.ServeHTTP(w, r)
	}))
	cmd := command(port, strings.TrimPrefix(e.proxy.URL, "http://"))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		panic(fmt.Sprintf("%v (make stores installs what is needed)", err))
	}
	e.stop = func() {
		e.proxy.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it is killed
	}
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if r, err := http.Get(to.String() + "/"); err == nil {
			r.Body.Close()
			return e
		}
		if time.Now().After(deadline) {
			panic(cmd.Path + " doesn't answer")
		}
	}
}

// cloudAddress returns a place in a new bucket.
func cloudAddress(t *testing.T, kind string) string {
	t.Helper()
	e, name := emulators[kind], "mail"+hex.EncodeToString(strconv.AppendUint(nil, rand.Uint64(), 10))[:20]
	if kind == "Google" {
		r, err := http.Post(e.proxy.URL+"/storage/v1/b?project=p", "application/json", strings.NewReader(fmt.Sprintf(`{"name":%q}`, name)))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return "gs://" + name + "/acme/eml"
	}
	key, err := container.NewSharedKeyCredential(azureAccount, azureKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := container.NewClientWithSharedKeyCredential(e.proxy.URL+"/"+azureAccount+"/"+name, key, nil)
	if err == nil {
		_, err = c.Create(t.Context(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return "azblob://" + name + "/acme/eml?protocol=http&domain=" + url.QueryEscape(strings.TrimPrefix(e.proxy.URL, "http://"))
}

// A server that fails now and then, and asks to slow down, gets every object
// all the same, small ones and those in parts; also where only one may write.
func TestCloudsThatFail(t *testing.T) {
	for _, kind := range clouds {
		t.Run(kind, func(t *testing.T) {
			path := cloudAddress(t, kind)
			o := target.Owner{Sink: "archive", Pipeline: "p1", Store: serve(t)}
			e, word := emulators[kind], strings.TrimPrefix(strings.SplitN(path, "/", 4)[2], "/")
			e.mu.Lock()
			e.mishap = func(r *http.Request) bool { return strings.Contains(r.URL.Path, word) && rand.N(6) == 0 }
			e.mu.Unlock()
			defer func() {
				e.mu.Lock()
				defer e.mu.Unlock()
				e.mishap = nil
			}()
			files := open(t, path, o, nil)
			for n := range 30 {
				write(t, files, n+1, fmt.Sprintf("%d.eml", n), octets(1000*n))
			}
			write(t, files, 31, "big.eml", octets(20<<20))
			flush(t, files)
			if err := files.Close(); err != nil {
				t.Fatal(err)
			}
			for n := range 30 {
				if b, err := held(t, path, o, fmt.Sprintf("%d.eml", n)); err != nil || !bytes.Equal(b, octets(1000*n)) {
					t.Errorf("%d.eml has %d octets (%v), want %d", n, len(b), err, 1000*n)
				}
			}
			if b, err := held(t, path, o, "big.eml"); err != nil || !bytes.Equal(b, octets(20<<20)) {
				t.Errorf("big.eml has %d octets (%v)", len(b), err)
			}
		})
	}
}

// Servers that ask to slow down for longer than anybody waits end the call
// with that class, and don't keep the SDK at it for ever.
func TestCloudsThatStayBad(t *testing.T) {
	for _, kind := range clouds {
		t.Run(kind, func(t *testing.T) {
			path := cloudAddress(t, kind)
			if strings.Contains(path, "?") {
				path += "&patience=1s"
			} else {
				path += "?patience=1s"
			}
			e := emulators[kind]
			b := bucket(t, path, target.Owner{Store: serve(t)})
			e.mu.Lock()
			refuse := e.refuse
			e.mishap = func(*http.Request) bool { return true }
			e.mu.Unlock()
			defer func() {
				e.mu.Lock()
				defer e.mu.Unlock()
				e.mishap, e.refuse = nil, refuse
			}()
			for what, call := range map[string]func(context.Context) error{
				"put": func(ctx context.Context) error {
					return b.Put(ctx, "1.eml", bytes.NewReader([]byte("x")), 1, objects.PutOptions{})
				},
				"list": b.Check,
				"read": func(ctx context.Context) error { _, err := b.Read(ctx, "1.eml"); return err },
			} {
				err := call(t.Context())
				if !fault.Is(err, fault.Throttled) && !fault.Is(err, fault.Unavailable) {
					t.Errorf("%s: got %v, want throttled or unavailable", what, err)
				}
			}
		})
	}
}

// What isn't there is told as such by every cloud.
func TestCloudsWithoutTheObject(t *testing.T) {
	for _, kind := range clouds {
		t.Run(kind, func(t *testing.T) {
			b := bucket(t, cloudAddress(t, kind), target.Owner{Store: serve(t)})
			if _, err := b.Read(t.Context(), "nothing"); !errors.Is(err, objects.ErrMissing) {
				t.Errorf("read: %v", err)
			}
			if _, err := b.Stat(t.Context(), "nothing"); !errors.Is(err, objects.ErrMissing) {
				t.Errorf("stat: %v", err)
			}
			if err := b.Delete(t.Context(), "nothing"); err != nil {
				t.Errorf("delete: %v", err)
			}
		})
	}
}
