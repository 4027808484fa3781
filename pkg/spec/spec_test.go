package spec_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type tlsConfig struct {
	CAFile string `json:"ca_file" doc:"PEM file of the authorities to trust"`
	Name   string `json:"server_name" required:"true" doc:"name that the certificate must carry"`
	Depth  int    `json:"depth" default:"3" min:"1" max:"9" doc:"longest chain"`
}

type common struct {
	Timeout time.Duration `json:"timeout" default:"60s" min:"1s" doc:"how long the server may be silent"`
}

type config struct {
	Address     string            `json:"address" required:"true" doc:"host:port of the server" example:"imap.example.com:993|localhost:143"`
	Security    string            `json:"security" enum:"tls,starttls,none" default:"tls" doc:"how the connection is secured"`
	Password    spec.Secret       `json:"password" doc:"password of the account"`
	Connections int               `json:"connections" default:"4" min:"1" max:"64" doc:"connections at once"`
	Ratio       float64           `json:"ratio" default:"0.5"`
	Chunk       spec.Bytes        `json:"chunk" default:"1MB" max:"16MiB" doc:"octets at a time"`
	Rate        spec.Rate         `json:"rate" doc:"most requests"`
	Names       []string          `json:"names" default:"a,b" doc:"some | names"`
	Labels      map[string]string `json:"labels"`
	TLS         tlsConfig         `json:"tls" doc:"of the connection"`
	Proxy       *tlsConfig        `json:"proxy"`
	Since       *time.Time        `json:"since"`
	Debug       bool              `json:"debug"`
	Any         json.RawMessage   `json:"any"`
	common
}

func (c *config) Validate() error {
	if c.Security == "none" && c.TLS.CAFile != "" {
		return fault.New(fault.Config, "useless without TLS").WithKey("tls.ca_file")
	}
	return nil
}

func TestDecodeFillsDefaults(t *testing.T) {
	t.Parallel()
	var c config
	if err := spec.Decode([]byte(`{"address":"x:1"}`), &c, nil); err != nil {
		t.Fatal(err)
	}
	if c.Address != "x:1" || c.Security != "tls" || c.Connections != 4 || c.Ratio != 0.5 || c.Chunk != spec.MB ||
		c.Timeout != time.Minute || c.TLS.Depth != 3 || c.Proxy != nil || c.Since != nil || !c.Rate.IsZero() || !c.Password.IsZero() {
		t.Errorf("decoded %+v", c)
	}
	if diff := cmp.Diff([]string{"a", "b"}, c.Names); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeReadsEveryType(t *testing.T) {
	t.Parallel()
	var c config
	err := spec.Decode([]byte(`{"address":"x:1","password":"p","chunk":4096,"rate":"5MB/s","names":[],"labels":{"k":"v"},
		"tls":{"server_name":"n"},"proxy":{"server_name":"p"},"since":"2024-01-31T00:00:00Z","debug":true,"any":{"b":1,"a":[null]},"timeout":"1h30m"}`), &c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Chunk != 4096 || c.Rate != (spec.Rate{PerSecond: 5e6, Octets: true}) || len(c.Names) != 0 || c.Labels["k"] != "v" ||
		c.Proxy.Name != "p" || c.Proxy.Depth != 3 || c.Since.Year() != 2024 || !c.Debug || string(c.Any) != `{"b":1,"a":[null]}` || c.Timeout != 90*time.Minute {
		t.Errorf("decoded %+v", c)
	}
	if got, err := c.Password.Value(t.Context()); got != "p" || err != nil {
		t.Errorf("password %q, %v", got, err)
	}
}

func TestDecodeFindsAllErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, json string
		want       []string // "key: text"
	}{
		{"missing", `{}`, []string{`address: missing: expected a string`}},
		{"unknown key", `{"address":"x","pasword":"p"}`, []string{`pasword: unknown key; did you mean "password"?`}},
		{"enum", `{"address":"x","security":"start_tls"}`, []string{`security: "start_tls" isn't allowed: expected one of tls, starttls, none; did you mean "starttls"?`}},
		{"several", `{"address":1,"connections":"4","debug":"yes","tls":{"depth":1.5,"ca":"x"},"names":["a",2],"labels":{"a":true}}`, []string{
			`address: expected a string, found the number 1`,
			`connections: expected a whole number, found a string`,
			`names[1]: expected a string, found the number 2`,
			`labels.a: expected a string, found the boolean true`,
			`tls.ca: unknown key; did you mean "ca_file"?`,
			`tls.server_name: missing: expected a string`,
			`tls.depth: expected a whole number, found the number 1.5`,
			`debug: expected true or false, found a string`}},
		{"ranges", `{"address":"x","connections":65,"chunk":"17MiB","timeout":"1ms"}`, []string{
			`connections: 65 is out of range: expected 1 to 64`,
			`chunk: 17MiB is out of range: expected at most 16MiB`,
			`timeout: 1ms is out of range: expected 1s or more`}},
		{"null", `{"address":null}`, []string{`address: nothing stands there: expected a string; leave the key out for its default`}},
		{"durations and sizes", `{"address":"x","timeout":"5","chunk":"1M","rate":"5"}`, []string{
			`chunk: "1M" is no size: expected a number and one of B, KB, MB, GB, TB (thousands), KiB, MiB, GiB, TiB (1,024s), as in 25MB`,
			`rate: "5" is no rate: expected a number or a size for each s, m or h, as in 50/s or 5MB/s`,
			`timeout: "5" is no duration: expected one as in 30s, 5m or 1h30m`}},
		{"a secret is not shown", `{"address":"x","password":{"hunter2":1}}`, []string{`password: expected a string, found a mapping`}},
		{"validate", `{"address":"x","security":"none","tls":{"ca_file":"x","server_name":"y"}}`, []string{`tls.ca_file: useless without TLS`}},
		{"doubled key", `{"address":"x","address":"y"}`, []string{`read the config: the key "address" stands there twice`}},
		{"no object", `[]`, []string{`expected a mapping, found a list`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var c config
			err := spec.Decode([]byte(tt.json), &c, nil)
			if err == nil {
				t.Fatal("no error")
			}
			var got []string
			parts := []error{err}
			if many, ok := err.(interface{ Unwrap() []error }); ok {
				parts = many.Unwrap()
			}
			for _, e := range parts {
				f := fault.As(e)
				if f == nil || f.Class != fault.Config || f.Key != "" && !strings.HasPrefix(f.Text, f.Key+": ") {
					t.Errorf("%v: not a Config fault with its key: %+v", e, f)
				}
				got = append(got, e.Error())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSecretIsAskedForEachTimeAndNeverShown(t *testing.T) {
	t.Parallel()
	calls := 0
	var c config
	raw := fmt.Sprintf(`{"address":"x","password":%s}`, spec.SecretJSON("sources.alice.password"))
	err := spec.Decode([]byte(raw), &c, func(_ context.Context, ref string) (string, error) {
		if calls++; ref != "sources.alice.password" {
			return "", errors.New("another reference")
		}
		return fmt.Sprintf("hunter%d", calls), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for want := 1; want <= 2; want++ {
		if got, err := c.Password.Value(t.Context()); err != nil || got != fmt.Sprintf("hunter%d", want) {
			t.Errorf("value %q, %v", got, err)
		}
	}
	c.Password = spec.Plain("hunter2")
	var out strings.Builder
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "secret", c.Password, "config", c)
	marshalled, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{out.String(), string(marshalled), fmt.Sprint(c), fmt.Sprintf("%+v %#v %s %q %x %d", c, c, c.Password, c.Password, c.Password, c.Password), c.Password.String()} {
		if strings.Contains(printed, "hunter") || !strings.Contains(printed, "(secret)") {
			t.Errorf("printed as %s", printed)
		}
	}
}

// A renewed value goes where the secret comes from; one without a place says
// how it gets one.
func TestSecretStore(t *testing.T) {
	t.Parallel()
	kept := map[string]string{"token": "old"}
	vault := spec.Vault{
		Value: func(_ context.Context, ref string) (string, error) { return kept[ref], nil },
		Store: func(_ context.Context, ref, value string) error { kept[ref] = value; return nil },
	}
	var c config
	if err := spec.DecodeWith(fmt.Appendf(nil, `{"address":"x","password":%s}`, spec.SecretJSON("token")), &c, vault); err != nil {
		t.Fatal(err)
	}
	if err := c.Password.Store(t.Context(), "new"); err != nil {
		t.Error(err)
	}
	if got, err := c.Password.Value(t.Context()); got != "new" || err != nil {
		t.Errorf("value %q, %v; want the new one", got, err)
	}
	for name, s := range map[string]spec.Secret{"plain": spec.Plain("hunter2"), "zero": {}} {
		err := s.Store(t.Context(), "new")
		if !fault.Is(err, fault.Config) || !strings.Contains(fault.As(err).Hint, "${store:NAME}") {
			t.Errorf("%s: %v, want a Config with a hint", name, err)
		}
	}
}

func TestSchemaGoldenAndAgreesWithDecode(t *testing.T) {
	t.Parallel()
	schema, err := spec.SchemaOf(config{})
	if err != nil {
		t.Fatal(err)
	}
	var pretty strings.Builder
	enc := json.NewEncoder(&pretty)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(json.RawMessage(schema)); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/config.schema.json", pretty.String())
	docs, err := spec.Markdown(schema)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/config.md", docs)

	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(schema)))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("mem:///config", doc); err != nil {
		t.Fatal(err)
	}
	checker, err := compiler.Compile("mem:///config")
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{`{"address":"x"}`, `{}`, `{"address":1}`, `{"address":"x","nope":1}`, `{"address":"x","security":"none"}`,
		`{"address":"x","security":"no"}`, `{"address":"x","connections":0}`, `{"address":"x","chunk":"1.5 MiB"}`, `{"address":"x","chunk":"1.5M"}`, `{"address":"x","chunk":12}`,
		`{"address":"x","rate":"5MB/s"}`, `{"address":"x","rate":"5/d"}`, `{"address":"x","timeout":"5m"}`, `{"address":"x","timeout":"5"}`, `{"address":"x","tls":{}}`} {
		instance, err := jsonschema.UnmarshalJSON(strings.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		var c config
		byDecode, bySchema := spec.Decode([]byte(raw), &c, nil), checker.Validate(instance)
		if (byDecode == nil) != (bySchema == nil) {
			t.Errorf("%s: decoding says %v, the schema says %v", raw, byDecode, bySchema)
		}
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s isn't current; run the test with -update:\n%s", path, diff)
	}
}

func TestSchemaRefusesWhatAConfigCannotHold(t *testing.T) {
	t.Parallel()
	type loop struct {
		Next *struct {
			C chan int `json:"c"`
		} `json:"next"`
	}
	for name, v := range map[string]any{
		"no struct": 1, "nil": nil, "channel": loop{},
		"no tag": struct{ X int }{},
		"bad default": struct {
			X int `json:"x" default:"many"`
		}{},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := spec.SchemaOf(v); !fault.Is(err, fault.Bug) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestBytesAndRates(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]spec.Bytes{"25MB": 25e6, "1.5 GiB": 3 << 29, "10kib": 10240, "0": 0, "7B": 7, "9223372036854775807": 1<<63 - 1} {
		got, err := spec.ParseBytes(text)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
		if again, err := spec.ParseBytes(got.String()); err != nil || again != got {
			t.Errorf("%s prints as %s, which is %d, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "MB", "-1", "1e9", "1M", "9223372036854775808", "9999999999GB", "1..5MB", "Inf", "0x10", "1 2MB"} {
		if got, err := spec.ParseBytes(text); err == nil {
			t.Errorf("%q was read as %d", text, got)
		}
	}
	for text, want := range map[string]spec.Rate{"50/s": {PerSecond: 50}, "600/m": {PerSecond: 10}, "7200/h": {PerSecond: 2}, "5MB/s": {PerSecond: 5e6, Octets: true}} {
		if got, err := spec.ParseRate(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	// A rate is passed on as its text, which must stay a limit.
	for r, want := range map[spec.Rate]string{
		{PerSecond: 5e6, Octets: true}: "5MB/s", {PerSecond: 0.2, Octets: true}: "1B/s", {Octets: true}: "0B/s", {PerSecond: 0.2}: "0.2/s",
	} {
		if got := r.String(); got != want {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	words := []string{"password", "plugin", "mailboxes", "include", "name", "when"}
	for word, want := range map[string]string{"pasword": "password", "plugni": "plugin", "Name": "name", "includes": "include", "mailbox": "mailboxes", "xyz": "", "": "", "wehn": "when"} {
		if got := spec.Nearest(word, words); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"address":"x","tls":{"server_name":"y","depth":2},"chunk":"5MB"}`))
	f.Add([]byte(`{"address":"x","password":{"$secret":"a"},"any":[[[]]]}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var c config
		if err := spec.Decode(raw, &c, nil); err == nil && (c.Address == "" && !strings.Contains(string(raw), `"address"`) || c.Connections < 1) {
			t.Errorf("%s was taken as %+v", raw, c)
		} else if err != nil && fault.Of(err) != fault.Config {
			t.Errorf("%s: %v is no fault of the config", raw, err)
		}
	})
}

func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"25MB", "1.5GiB", "4096", "1K", "-3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := spec.ParseBytes(text)
		if err != nil {
			return
		}
		if again, err := spec.ParseBytes(b.String()); err != nil || again != b || b < 0 {
			t.Errorf("%q is %d, which prints as %s and is read back as %d, %v", text, b, b, again, err)
		}
	})
}

// window is a value with a short form: 5 stands for {from: 0, to: 5}.
type window struct {
	From int `json:"from"`
	To   int `json:"to" required:"true"`
}

func (w *window) UnmarshalJSON(b []byte) error {
	var to int
	if err := json.Unmarshal(b, &to); err == nil {
		*w = window{To: to}
		return nil
	}
	type plain window
	return spec.Decode(b, (*plain)(w), nil)
}

func (*window) ConfigSchema() []byte {
	return []byte(`{"oneOf":[{"type":"integer"},{"type":"object","properties":{"from":{"type":"integer"},"to":{"type":"integer","description":"where it ends"}}}]}`)
}

func (w *window) Validate() error {
	if w.From > w.To {
		return errors.New("it ends before it begins")
	}
	return nil
}

func TestTypesThatReadThemselves(t *testing.T) {
	t.Parallel()
	type own struct {
		Window window    `json:"window" default:"7"`
		Since  time.Time `json:"since"`
		Small  uint8     `json:"small"`
		Part   float32   `json:"part" max:"1"`
	}
	var o own
	if err := spec.Decode([]byte(`{}`), &o, nil); err != nil || o.Window.To != 7 {
		t.Errorf("%+v, %v", o, err)
	}
	if err := spec.Decode([]byte(`{"window":{"from":1,"to":2},"small":255,"part":0.5}`), &o, nil); err != nil || o.Window != (window{1, 2}) || o.Small != 255 || o.Part != 0.5 {
		t.Errorf("%+v, %v", o, err)
	}
	err := spec.Decode([]byte(`{"window":{"from":"x"},"since":"yesterday","small":256,"part":1.5}`), &o, nil)
	want := []string{"window.from: expected a whole number, found a string", "window.to: missing: expected a whole number", "since: parsing time", "small: expected a whole number that isn't negative", "part: 1.5 is out of range: expected at most 1"}
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Fatalf("got %q", lines)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("got %s, want %s", lines[i], want[i])
		}
	}
	if err := spec.Decode([]byte(`{"window":{"from":3,"to":2}}`), &o, nil); err == nil || err.Error() != "window: it ends before it begins" {
		t.Errorf("got %v", err)
	}
	schema, err := spec.SchemaOf(&own{})
	if err != nil {
		t.Fatal(err)
	}
	docs, err := spec.Markdown(schema)
	if err != nil || !strings.Contains(docs, "| `window` | whole number or mapping | `7` |  |\n") || !strings.Contains(docs, "`window.to` | whole number | – | where it ends |") {
		t.Errorf("%v\n%s", err, docs)
	}
}

func TestMisuseIsABug(t *testing.T) {
	t.Parallel()
	var c config
	for name, err := range map[string]error{
		"no pointer": spec.Decode([]byte(`{}`), c, nil),
		"nil":        spec.Decode([]byte(`{}`), (*config)(nil), nil),
		"a channel": spec.Decode([]byte(`{"c":1}`), &struct {
			C chan int `json:"c"`
		}{}, nil),
		"a default that is none": spec.Decode([]byte(`{}`), &struct {
			X int `json:"x" default:"many"`
		}{}, nil),
	} {
		if !fault.Is(err, fault.Bug) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"{", "[]"} {
		if _, err := spec.Markdown([]byte(text)); !fault.Is(err, fault.Bug) {
			t.Errorf("a schema %s: %v", text, err)
		}
	}
}
