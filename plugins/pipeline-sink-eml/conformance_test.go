package main

import (
	"testing"

	"github.com/mailhaul/pipeline/pkg/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Sink(t, plugin(), plugintest.Fixture{Config: map[string]any{"path": "{dir}/out"}})
}
