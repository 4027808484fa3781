package wire

// What a host and a plugin agree on before the first call. All of it is part
// of the public contract.
const (
	// Protocol is the version of the wire contract (go-plugin's application
	// protocol version).
	Protocol = 1
	// CookieKey and CookieValue in the environment say that a host started
	// the plugin. They protect nothing: they tell a person's call apart.
	CookieKey   = "MAILHAUL_PLUGIN"
	CookieValue = "started-by-mailhaul"
	// EnvWindow is the window of each stream, in octets.
	EnvWindow = "MAILHAUL_STREAM_WINDOW"
	// EnvLogLevel is the lowest level that the host wants to see: debug,
	// info, warn or error.
	EnvLogLevel = "MAILHAUL_LOG_LEVEL"
	// EnvWatch says that the plugin's standard input is a pipe that the host
	// alone holds: its end means that the host is gone.
	EnvWatch = "MAILHAUL_WATCH_STDIN"
	// EnvProfile names a folder for profiles of where the plugin's CPU time and
	// memory went, an absolute path; a plugin may ignore it.
	EnvProfile = "MAILHAUL_PPROF"
	// EnvShared is the descriptor of a file with memory that the host shares,
	// a number; a plugin may ignore it.
	EnvShared = "MAILHAUL_SHARED_MEMORY"
	// EnvReattach is the host's: plugins that run already, as `serve --debug`
	// prints it.
	EnvReattach = "MAILHAUL_REATTACH"
)
