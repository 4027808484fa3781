package config_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// imapConfig stands for a plugin's config.
type imapConfig struct {
	Address  string        `json:"address" required:"true"`
	Security string        `json:"security" enum:"tls,starttls,none" default:"tls"`
	Password spec.Secret   `json:"password"`
	Lanes    int           `json:"connections" default:"4" min:"1" max:"64"`
	Timeout  time.Duration `json:"timeout" default:"60s"`
	Chunk    spec.Bytes    `json:"chunk" default:"1MB"`
	Debug    bool          `json:"debug"`
	Names    []string      `json:"names"`
	TLS      struct {
		CAFile string      `json:"ca_file"`
		Key    spec.Secret `json:"key"`
	} `json:"tls"`
	Tokens map[string]spec.Secret `json:"tokens"`
}

// values are references of a test: variables, one file, commands that echo.
func values(env map[string]string) config.Values {
	return config.Values{
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		ReadFile: func(path string) ([]byte, error) {
			if path == "/run/secrets/x" {
				return []byte("from the file\n"), nil
			}
			return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
		},
		Exec: func(_ context.Context, argv []string) ([]byte, error) {
			if argv[0] == "fail" {
				return nil, errors.New("exit status 1")
			}
			return fmt.Appendf(nil, "%q\n", argv), nil
		},
	}
}

func plugin(t testing.TB, yaml string) (*config.PluginConfig, *config.PluginSchema) {
	t.Helper()
	text := "version: 1\nsinks: [{name: b, plugin: eml}]\nsources:\n  - name: a\n    plugin: imap\n    config:\n"
	for line := range strings.Lines(yaml) {
		text += "      " + line
	}
	f, err := config.Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f.Sources[0].Config, imapSchema(t)
}

func imapSchema(t testing.TB) *config.PluginSchema {
	t.Helper()
	raw, err := spec.SchemaOf(imapConfig{})
	if err != nil {
		t.Fatal(err)
	}
	schema, err := config.ParseSchema(raw)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestCheckFindsAllWithTheirPlaces(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, yaml string
		want       []string
	}{
		{"right", "address: x\nconnections: ${env:N}\nsecurity: ${env:S}\npassword: ${env:P}\nchunk: 5", nil},
		{"several", "adress: x\nsecurity: starttsl\nconnections: 65\ntimeout: 5\nchunk: 5M\ndebug: yes\nnames: [a, 2]\ntls: {cafile: x, key: [1]}\ntokens: {a: {b: c}}", []string{
			`7:7: sources[0].config.address: missing: expected a text`,
			`7:7: sources[0].config.adress: unknown key; did you mean "address"?`,
			`8:17: sources[0].config.security: "starttsl" isn't allowed: expected one of tls, starttls, none; did you mean "starttls"?`,
			`9:20: sources[0].config.connections: 65 is out of range: expected at most 64`,
			`10:16: sources[0].config.timeout: expected a duration as in 30s, 5m or 1h30m, found a number; put it in quotes`,
			`11:14: sources[0].config.chunk: "5M" isn't allowed: expected a size as in 25MB, 1.5GiB or 4096`,
			`12:14: sources[0].config.debug: expected true or false, found a text`,
			`13:18: sources[0].config.names[1]: expected a text, found a number; put it in quotes`,
			`14:13: sources[0].config.tls.cafile: unknown key; did you mean "ca_file"?`,
			`14:29: sources[0].config.tls.key: expected a text, found a list`,
			`15:19: sources[0].config.tokens.a: expected a text, found a mapping`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, schema := plugin(t, tt.yaml)
			if diff := cmp.Diff(tt.want, problems(c.CheckWith(schema))); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, raw := range []string{"{", "[]", `{"type":5}`, `{"$ref":"file:///etc/passwd"}`} {
		c, _ := plugin(t, "address: x")
		_, resolving := c.Resolve(t.Context(), []byte(raw), values(nil))
		for _, err := range []error{c.Check([]byte(raw)), resolving} {
			if !fault.Is(err, fault.Bug) {
				t.Errorf("the schema %s: %v", raw, err)
			}
		}
	}
}

// A secret that stands as ${store:NAME} alone can be written to; what is
// written is what is read next.
func TestStore(t *testing.T) {
	t.Parallel()
	kept := map[string]string{}
	v := values(map[string]string{"USER": "ann"})
	v.ReadStore = func(name string) (string, error) { return kept[name], nil }
	v.WriteStore = func(name, value string) error { kept[name] = value; return nil }
	c, schema := plugin(t, "address: x\npassword: ${store:token-${env:USER}}\ntls: {key: 'Bearer ${store:other}'}\ntokens: {a: '${env:USER}'}")
	r, err := c.ResolveWith(t.Context(), schema, v)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Secrets["password"](t.Context()); got != "" || err != nil {
		t.Errorf("before any write: %q, %v", got, err)
	}
	if err := r.Stores["password"](t.Context(), "renewed"); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Secrets["password"](t.Context()); got != "renewed" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if diff := cmp.Diff(map[string]string{"token-ann": "renewed"}, kept); diff != "" {
		t.Error(diff)
	}
	if len(r.Stores) != 1 {
		t.Errorf("%d secrets can be stored; the others aren't ${store:NAME} alone", len(r.Stores))
	}
	if _, err := config.Parse("x.yaml", []byte("version: 1\nstate: '${store:x}'\nsources: [{name: a, plugin: b, config: {p: '${store:}'}}]\nsinks: [{name: a, plugin: b}]")); len(problems(err)) != 2 {
		t.Errorf("%v, want state and the missing name refused", err)
	}
}

func TestCheckWithASchemaOfAnotherLanguage(t *testing.T) {
	t.Parallel()
	schema, err := config.ParseSchema([]byte(`{"type":"object","properties":{"auth":{"oneOf":[{"$ref":"#/$defs/basic"},{"$ref":"#/$defs/token"}]}},"additionalProperties":false,
		"$defs":{"basic":{"type":"object","properties":{"user":{"type":"string"},"password":{"type":"string","x-secret":true}},"required":["user"],"additionalProperties":false},
		"token":{"type":"string","x-secret":true}}}`))
	if err != nil {
		t.Fatal(err)
	}
	c, _ := plugin(t, "auth: {user: a, pasword: hunter2}")
	want := []string{`7:23: sources[0].config.auth.pasword: unknown key; did you mean "password"?`}
	if diff := cmp.Diff(want, problems(c.CheckWith(schema))); diff != "" {
		t.Error(diff)
	}
	c, _ = plugin(t, "auth: {user: a, password: hunter2}")
	r, err := c.ResolveWith(t.Context(), schema, values(nil))
	if err != nil {
		t.Fatal(err)
	}
	if string(r.JSON) != `{"auth":{"user":"a","password":{"$secret":"auth.password"}}}` {
		t.Errorf("%s", r.JSON)
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	c, schema := plugin(t, "address: ${env:HOST}:${env:PORT:-993}\nconnections: ${env:N}\ndebug: ${env:D:-true}\nnames: ['${file:/run/secrets/x}', '$${env:X} $5', '${exec:pass show \"a b\" x${env:HOST}}', '${env:EMPTY:-${env:HOST}}']\n"+
		"password: ${env:P}\ntls: {key: plain}\ntokens: {a.b: '${exec:pass ${env:P}}'}")
	env := map[string]string{"HOST": "h 1", "N": "8", "P": "hunter2", "EMPTY": ""}
	r, err := c.ResolveWith(t.Context(), schema, values(env))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"address":"h 1:993","connections":8,"debug":true,"names":["from the file","${env:X} $5","[\"pass\" \"show\" \"a b\" \"xh 1\"]","h 1"],` +
		`"password":{"$secret":"password"},"tls":{"key":{"$secret":"tls.key"}},"tokens":{"a.b":{"$secret":"tokens.a.b"}}}`
	if diff := cmp.Diff(want, string(r.JSON)); diff != "" {
		t.Error(diff)
	}
	got := map[string]string{}
	for ref, secret := range r.Secrets {
		if got[ref], err = secret(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(map[string]string{"password": "hunter2", "tls.key": "plain", "tokens.a.b": `["pass" "hunter2"]`}, got); diff != "" {
		t.Error(diff)
	}
	// The plugin reads it, and its secrets are asked for late.
	var decoded imapConfig
	err = spec.Decode(r.JSON, &decoded, func(ctx context.Context, ref string) (string, error) { return r.Secrets[ref](ctx) })
	if err != nil {
		t.Fatal(err)
	}
	env["P"] = "renewed"
	if v, err := decoded.Password.Value(t.Context()); v != "renewed" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	again, err := c.ResolveWith(t.Context(), schema, values(env))
	if err != nil {
		t.Fatal(err)
	}
	if again.Fingerprint != r.Fingerprint {
		t.Error("another password makes another fingerprint (I9)")
	}
	env["N"] = "9"
	if again, err = c.ResolveWith(t.Context(), schema, values(env)); err != nil || again.Fingerprint == r.Fingerprint {
		t.Errorf("another value makes no other fingerprint, %v", err)
	}
}

func TestResolveErrorsNameThePlaceAndNeverAValue(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, yaml string
		want       []string
	}{
		{"not set", "address: ${env:HOST}\nnames: ['${env:N1}']", []string{
			`7:16: sources[0].config.address: the environment variable HOST isn't set: set it, or give a default as ${env:HOST:-…}`,
			`8:15: sources[0].config.names[0]: the environment variable N1 isn't set: set it, or give a default as ${env:N1:-…}`}},
		{"no file", "address: ${file:/run/${env:P}}", []string{`7:16: sources[0].config.address: read the file of ${file:/run/${env:P}}: file does not exist`}},
		{"a failing command", "address: ${exec:fail ${env:P}}", []string{`7:16: sources[0].config.address: run the command of ${exec:fail ${env:P}}: exit status 1`}},
		{"a wrong value", "address: x\nconnections: ${env:P}\nsecurity: ${env:P}\ntimeout: ${env:P}", []string{
			`8:20: sources[0].config.connections: what the reference gives isn't allowed: expected a whole number`,
			`9:17: sources[0].config.security: what the reference gives isn't allowed: expected one of tls, starttls, none`,
			`10:16: sources[0].config.timeout: what the reference gives isn't allowed: expected a duration as in 30s, 5m or 1h30m`}},
		{"out of range", "address: x\nconnections: ${env:BIG}", []string{`8:20: sources[0].config.connections: what the reference gives is out of range: expected at most 64`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, schema := plugin(t, tt.yaml)
			_, err := c.ResolveWith(t.Context(), schema, values(map[string]string{"P": "hunter2", "BIG": "777"}))
			if diff := cmp.Diff(tt.want, problems(err)); diff != "" {
				t.Error(diff)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "777")) {
				t.Errorf("%v shows a value (I9)", err)
			}
		})
	}
}

// A secret is asked for when it is needed, but what can't come is told early.
func TestSecretsThatCannotCome(t *testing.T) {
	t.Parallel()
	c, schema := plugin(t, "address: x\npassword: ${env:NONE}\ntls: {key: '${exec:vault ${env:WHO}}'}\ntokens: {a: '${env:NONE:-${env:X}}', b: '${file:/never/read}'}")
	_, err := c.ResolveWith(t.Context(), schema, values(nil))
	want := []string{
		`8:17: sources[0].config.password: the environment variable NONE isn't set: set it, or give a default as ${env:NONE:-…}`,
		`9:18: sources[0].config.tls.key: the environment variable WHO isn't set: set it, or give a default as ${env:WHO:-…}`,
	}
	if diff := cmp.Diff(want, problems(err)); diff != "" {
		t.Error(diff)
	}
	// It may still go away before it is asked for.
	env := map[string]string{"NONE": "1", "WHO": "2"}
	r, err := c.ResolveWith(t.Context(), schema, values(env))
	if err != nil {
		t.Fatal(err)
	}
	delete(env, "NONE")
	_, err = r.Secrets["password"](t.Context())
	if err == nil || !fault.Is(err, fault.Config) || !strings.HasPrefix(err.Error(), "x.yaml:8:17: sources[0].config.password: the environment variable NONE isn't set") {
		t.Errorf("got %v", err)
	}
}

func TestPlace(t *testing.T) {
	t.Parallel()
	c, _ := plugin(t, "address: x\ntls:\n  ca_file: none.pem")
	other := errors.New("another thing")
	err := c.Place(errors.Join(fault.New(fault.Config, "no such file").WithKey("tls.ca_file").WithHint("name a PEM file"), other))
	if diff := cmp.Diff([]string{`9:18: sources[0].config.tls.ca_file: no such file (name a PEM file)`}, problems(err)); diff != "" {
		t.Error(diff)
	}
	if !errors.Is(err, other) {
		t.Errorf("%v lost the rest", err)
	}
	if err := c.Place(other); !errors.Is(err, other) || len(problems(err)) > 0 {
		t.Errorf("got %v", err)
	}
	if err := c.Place(nil); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestPlainSecrets(t *testing.T) {
	t.Parallel()
	c, schema := plugin(t, "address: x\npassword: hunter2\ntls: {key: '${env:K}'}\ntokens: {a: '$${x}'}")
	ps := c.PlainSecrets(schema)
	want := []string{
		`8:17: sources[0].config.password: a secret stands in the file: write ${env:NAME}, ${file:path} or ${exec:command}`,
		`10:19: sources[0].config.tokens.a: a secret stands in the file: write ${env:NAME}, ${file:path} or ${exec:command}`,
	}
	if diff := cmp.Diff(want, problems(ps)); diff != "" {
		t.Error(diff)
	}
}

func TestSystemValues(t *testing.T) {
	t.Setenv("MAILHAUL_TEST", "v")
	sys := config.System()
	if v, ok := sys.LookupEnv("MAILHAUL_TEST"); v != "v" || !ok {
		t.Error("the environment isn't read")
	}
	if out, err := sys.Exec(t.Context(), []string{"echo", "a b"}); string(out) != "a b\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := sys.Exec(t.Context(), []string{"sh", "-c", "echo what is wrong >&2; exit 3"}); err == nil || err.Error() != "exit status 3: what is wrong" {
		t.Errorf("got %v", err)
	}
}

func TestMatcher(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern string
		yes, no []string
	}{
		{"**", []string{"INBOX", "a/b/c", ""}, nil},
		{"*", []string{"INBOX", "Sent"}, []string{"a/b"}},
		{"Old/**", []string{"Old/2019", "Old/2019/May"}, []string{"Old", "Older", "X/Old/1"}},
		{"Old*", []string{"Old", "Older"}, []string{"Old/1", "old"}},
		{"*/Sent", []string{"a/Sent"}, []string{"Sent", "a/b/Sent", "a/Sent/x"}},
		{"**/Sent", []string{"Sent", "a/Sent", "a/b/Sent"}, []string{"a/xSent", "Sent/x"}},
		{"a/**/z", []string{"a/z", "a/b/z", "a/b/c/z"}, []string{"az", "a/bz"}},
		{"**x*y", []string{"xy", "a/b/x1y", "x/x2y"}, []string{"x/y"}},
		{"Inbox", []string{"INBOX", "inbox"}, []string{"INBOX/a", "xinbox"}},
		{"inbox/*", []string{"INBOX/a", "InBox/b"}, []string{"INBOX"}},
		{"A?[b]", []string{"A?[b]"}, []string{"Axb"}},
		{"Über/*", []string{"Über/é"}, []string{"über/é"}},
		{"special:trash", []string{"Deleted Items"}, []string{"trash"}},
		{"special:inbox", []string{"inbox"}, []string{"INBOX/a"}},
	}
	for _, tt := range tests {
		m, err := config.NewMatcher([]string{tt.pattern}, nil)
		if err != nil {
			t.Fatal(err)
		}
		x, err := config.NewMatcher(nil, []string{tt.pattern})
		if err != nil {
			t.Fatal(err)
		}
		for want, names := range map[bool][]string{true: tt.yes, false: tt.no} {
			for _, name := range names {
				box := message.Mailbox{Name: name}
				if name == "Deleted Items" {
					box.SpecialUse = []string{"trash"}
				}
				if got := m.Match(box); got != want {
					t.Errorf("%q on %q: %v", tt.pattern, name, got)
				}
				if got := x.Match(box); got == want {
					t.Errorf("excluding %q on %q: %v", tt.pattern, name, got)
				}
			}
		}
	}
	for _, bad := range []string{"", "special:bin", "a***"} {
		if _, err := config.NewMatcher([]string{bad}, nil); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// slowGlob is the definition: what matchGlob must say, in exponential time.
func slowGlob(p, s string, start bool) bool {
	switch {
	case p == "":
		return s == ""
	case strings.HasPrefix(p, "**/") && start:
		if slowGlob(p[3:], s, true) {
			return true
		}
		for i := range s {
			if s[i] == '/' && slowGlob(p[3:], s[i+1:], true) {
				return true
			}
		}
		return false
	case strings.HasPrefix(p, "**"):
		for i := 0; i <= len(s); i++ {
			if slowGlob(p[2:], s[i:], false) {
				return true
			}
		}
		return false
	case p[0] == '*':
		for i := 0; i <= len(s); i++ {
			if slowGlob(p[1:], s[i:], false) {
				return true
			}
			if i < len(s) && s[i] == '/' {
				break
			}
		}
		return false
	default:
		return s != "" && s[0] == p[0] && slowGlob(p[1:], s[1:], p[0] == '/')
	}
}

func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{{"**", "a/b"}, {"a/**/z", "a/b/z"}, {"**x*y", "a/x/xy"}, {"*/b*", "a/bc"}, {"**/a/**/b*", "x/a/y/a/z/bc"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, p, s string) {
		if len(p) > 12 || len(s) > 16 || strings.HasPrefix(p, "special:") {
			return
		}
		m, err := config.NewMatcher([]string{p}, nil)
		if err != nil || strings.Contains(strings.ToLower(p+s), "inbox") {
			return
		}
		if got, want := m.Match(message.Mailbox{Name: s}), slowGlob(p, s, true); got != want {
			t.Errorf("%q on %q: %v, want %v", p, s, got, want)
		}
	})
}

func FuzzInterpolation(f *testing.F) {
	for _, s := range []string{"${env:A}", "a${env:B:-x${env:A}}b", "$${x}", "${exec:a 'b c' \"d\"}", "${file:/run/secrets/x}", "${", "${env:A:-}"} {
		f.Add(s)
	}
	schema := imapSchema(f)
	f.Fuzz(func(t *testing.T, value string) {
		quoted, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		file, err := config.Parse("x.yaml", []byte("version: 1\nsinks: [{name: b, plugin: eml}]\nsources: [{name: a, plugin: imap, config: {address: "+string(quoted)+"}}]"))
		if err != nil {
			return
		}
		r, err := file.Sources[0].Config.ResolveWith(t.Context(), schema, values(map[string]string{"A": "hunter2"}))
		if err != nil {
			if strings.Contains(err.Error(), "hunter2") && !strings.Contains(value, "hunter2") {
				t.Errorf("%q: %v shows a value", value, err)
			}
			return
		}
		if !strings.Contains(value, "$") && !json.Valid(r.JSON) {
			t.Errorf("%q became %s", value, r.JSON)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	f, err := config.Parse("x.yaml", []byte(strings.Replace(bare(""), "imap}", "imap, config: {address: x, password: '${env:P}', connections: 5}}", 1)))
	if err != nil {
		b.Fatal(err)
	}
	schema := imapSchema(b)
	for b.Loop() {
		if err := f.Sources[0].Config.CheckWith(schema); err != nil {
			b.Fatal(err)
		}
	}
}
