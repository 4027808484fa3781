package mailnet

import (
	"strings"
	"time"
)

// Provider is what is known of a mail provider beforehand.
type Provider struct {
	IMAP, POP3  string // host:port, implicit TLS
	TokenURL    string // {tenant} is replaced
	DeviceURL   string
	Scopes      []string // for IMAP
	POPScopes   []string
	Connections int       // that are granted at once
	Budget      Allowance // by IMAP
	POPBudget   Allowance
	OAuthOnly   bool // passwords are no longer taken
}

// ProviderFor returns what is known of a provider. application says that a
// program logs in for all users (client credentials, a service account), which
// takes other scopes than a user's own login.
func ProviderFor(name string, application bool) (Provider, bool) {
	google := Provider{
		IMAP: "imap.gmail.com:993", POP3: "pop.gmail.com:995", Connections: 10,
		TokenURL: "https://oauth2.googleapis.com/token", DeviceURL: "https://oauth2.googleapis.com/device/code",
		Scopes: []string{"https://mail.google.com/"}, POPScopes: []string{"https://mail.google.com/"},
		// 2,500 and 1,250 MB a day are granted; who uses them up is locked
		// out for up to a day, so some is left for the user's own programs.
		Budget: Allowance{2_300_000_000, 24 * time.Hour}, POPBudget: Allowance{1_100_000_000, 24 * time.Hour},
	}
	switch name {
	case "gmail":
		return google, true
	case "google-workspace":
		google.OAuthOnly = true
		if application {
			google.Scopes = []string{"https://www.googleapis.com/auth/gmail.imap_admin"}
		}
		return google, true
	case "microsoft365":
		p := Provider{
			IMAP: "outlook.office365.com:993", POP3: "outlook.office365.com:995", Connections: 10, OAuthOnly: true,
			TokenURL:  "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
			DeviceURL: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode",
			Scopes:    []string{"https://outlook.office.com/IMAP.AccessAsUser.All", "offline_access"},
			POPScopes: []string{"https://outlook.office.com/POP.AccessAsUser.All", "offline_access"},
		}
		if application {
			p.Scopes = []string{"https://outlook.office365.com/.default"}
			p.POPScopes = p.Scopes
		}
		return p, true
	case "yahoo":
		return Provider{IMAP: "export.imap.mail.yahoo.com:993", POP3: "pop.mail.yahoo.com:995", Connections: 4}, true
	case "icloud":
		return Provider{IMAP: "imap.mail.me.com:993", Connections: 4}, true
	case "fastmail":
		return Provider{IMAP: "imap.fastmail.com:993", POP3: "pop.fastmail.com:995", Connections: 8}, true
	}
	return Provider{}, false
}

// Fill sets what the block leaves out from the provider.
func (o *OAuth2) Fill(p Provider, scopes []string) {
	tenant := o.Tenant
	if tenant == "" {
		tenant = "common"
	}
	set := func(to *string, value string) {
		if *to == "" {
			*to = strings.ReplaceAll(value, "{tenant}", tenant)
		}
	}
	set(&o.TokenURL, p.TokenURL)
	set(&o.DeviceURL, p.DeviceURL)
	if len(o.Scopes) == 0 {
		o.Scopes = scopes
	}
}

// Application reports whether the program logs in by itself, without a user's
// consent.
func (o *OAuth2) Application() bool { return !o.IsZero() && o.grant() != byRefresh }
