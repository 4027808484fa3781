package segments_test

import "os"

const childEnv = "SEGMENTS_TEST_CHILD"

func child() { os.Exit(0) }
