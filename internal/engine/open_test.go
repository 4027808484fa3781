package engine_test

import (
	"testing"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// I6: whatever a sink says when it is opened, it says of no message.
func TestASinkThatCannotBeOpenedMakesNoDeadLetters(t *testing.T) {
	t.Parallel()
	for _, class := range []fault.Class{fault.Message, fault.Config, fault.Full, fault.Unavailable} {
		t.Run(class.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newServer(100, "INBOX"))
			r.stores["files"].openErr = fault.New(class, "a file stands there").WithHint("remove it")
			res := r.run()
			r.wantExit(res, engine.ExitStopped)
			if sum := total(res); sum.DeadLetters != 0 || sum.Pending != sum.Listed {
				t.Errorf("sum: %+v", sum)
			}
			if f := fault.As(res.Err); f == nil || f.Hint != "remove it" {
				t.Errorf("the run stopped because of %v", res.Err)
			}
			r.stores["files"].openErr = nil
			r.wantExit(r.run(), engine.ExitDone)
			r.wantAll("files", nil)
		})
	}
}
