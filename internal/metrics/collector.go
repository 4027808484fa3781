package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mailhaul/pipeline/internal/ledger"
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("mailhaul_"+name, help, labels, nil)
}

var (
	infoDesc      = describe("run_info", "The run: 1.", "pipeline", "shard", "version")
	beganDesc     = describe("run_began_timestamp_seconds", "When the run began.")
	commitDesc    = describe("last_commit_timestamp_seconds", "When messages last became durable and entered the ledger; absent before the first.")
	accountsDesc  = describe("accounts", "Accounts of the run, by where they are.", "state")
	expectedDesc  = describe("messages_expected", "Messages that the servers count in the mailboxes to be listed.")
	listedDesc    = describe("messages_listed_total", "Messages listed.")
	todoDesc      = describe("messages_taken_total", "Of those listed, messages that this run has taken up: the others were done before.")
	fetchedDesc   = describe("messages_fetched_total", "Messages whose bodies came.")
	settledDesc   = describe("messages_settled_total", "Messages that are final and in the ledger, by what became of them.", "class")
	octetsDesc    = describe("fetched_bytes_total", "Octets of bodies that came.")
	restartsDesc  = describe("plugin_restarts_total", "Processes of plugins that were started again after their death.", "kind", "plugin")
	ofAccountDesc = describe("account_messages_settled_total", "Messages of an account that are final and in the ledger. Only with few accounts.", "account")
	itsOctetsDesc = describe("account_fetched_bytes_total", "Octets of an account's bodies that came. Only with few accounts.", "account")
)

// collector reads what the run counts anyway, when somebody asks: a message
// costs nothing more for being watched.
type collector struct{ m *Metrics }

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		infoDesc, beganDesc, commitDesc, accountsDesc, expectedDesc, listedDesc, todoDesc, fetchedDesc, settledDesc, octetsDesc,
		restartsDesc, ofAccountDesc, itsOctetsDesc,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	m := c.m
	m.mu.Lock()
	run, committed, accounts := m.run, m.committed, m.count()
	m.mu.Unlock()
	if run == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(infoDesc, 1, run.Pipeline, run.Shard, run.Version)
	gauge(beganDesc, float64(run.Began.UnixMilli())/1000)
	if !committed.IsZero() {
		gauge(commitDesc, float64(committed.UnixMilli())/1000)
	}
	for s, n := range accounts {
		gauge(accountsDesc, float64(n), stateNames[s])
	}
	t := run.Stats.Totals()
	gauge(expectedDesc, float64(t.Expected))
	counter(listedDesc, t.Listed)
	counter(todoDesc, t.Todo)
	counter(fetchedDesc, t.Fetched)
	counter(octetsDesc, t.Octets)
	for class := ledger.Written; class < ledger.Stale; class++ {
		counter(settledDesc, t.Became[class], strings.ReplaceAll(class.String(), " ", "_"))
	}
	run.Restarts(func(kind, plugin string, n int64) { counter(restartsDesc, n, kind, plugin) })
	if len(run.Accounts) > MostAccounts {
		return
	}
	for _, name := range run.Accounts {
		a := run.Stats.Account(name)
		counter(ofAccountDesc, a.Settled.Load(), name)
		counter(itsOctetsDesc, a.Octets.Load(), name)
	}
}
