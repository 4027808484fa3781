package main

import (
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Sink(t, plugin(), plugintest.Fixture{Patience: time.Second, Config: map[string]any{"path": "{dir}/out", "only": map[string]any{"inline": true}}})
}
