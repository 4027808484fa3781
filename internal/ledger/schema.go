package ledger

// schemaVersion is raised with every change that an older program can't read.
const schemaVersion = 3

// Schema is the version of the tables, and so of what is executed on them.
const Schema = schemaVersion

// applicationID marks the file as a ledger for SQLite and file(1): "mHl1".
const applicationID = 0x6d486c31

// A message is one row: its octets' hash and size, and its fates packed. Its
// key (see Box) is the number of its mailbox and its UID in one: SQLite's own
// integer key, which stands in no index and fills pages to the brim when it
// grows. What only few
// messages have (a letter, a refusal, a string id) stands in tables of its
// own, so that the common row stays short; so do the words that many refusals
// share.
const schema = `
CREATE TABLE meta (
	key TEXT PRIMARY KEY,
	value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE target (
	id INTEGER PRIMARY KEY,
	sink TEXT NOT NULL,
	target TEXT NOT NULL,
	checkpoint BLOB,
	dirty INTEGER NOT NULL DEFAULT 0,
	known INTEGER NOT NULL DEFAULT 0,
	UNIQUE (sink, target)
);
CREATE TABLE box (
	id INTEGER PRIMARY KEY,
	source TEXT NOT NULL,
	mailbox TEXT NOT NULL,
	uid_validity INTEGER NOT NULL,
	strings INTEGER NOT NULL DEFAULT 0,
	content TEXT NOT NULL DEFAULT '',
	flags TEXT NOT NULL DEFAULT '',
	fingerprint TEXT NOT NULL DEFAULT '',
	tally TEXT NOT NULL DEFAULT '',
	superseded INTEGER NOT NULL DEFAULT 0,
	UNIQUE (source, mailbox, uid_validity)
);
CREATE TABLE message (
	key INTEGER PRIMARY KEY,
	octets INTEGER,
	sha256 BLOB,
	fates BLOB NOT NULL,
	mark INTEGER
);
CREATE TABLE alias (
	key INTEGER PRIMARY KEY,
	was INTEGER NOT NULL
);
CREATE TABLE string_id (
	box INTEGER NOT NULL,
	uidl TEXT NOT NULL,
	header_hash TEXT NOT NULL,
	ordinal INTEGER NOT NULL,
	num INTEGER NOT NULL,
	PRIMARY KEY (box, uidl, header_hash, ordinal)
) WITHOUT ROWID;
CREATE TABLE changed (
	key INTEGER PRIMARY KEY,
	rule INTEGER NOT NULL
);
CREATE TABLE claim (
	key INTEGER PRIMARY KEY,
	digest BLOB NOT NULL,
	kin BLOB NOT NULL,
	round INTEGER NOT NULL,
	seen INTEGER NOT NULL
);
CREATE INDEX claim_digest ON claim (digest);
CREATE INDEX claim_kin ON claim (kin);
CREATE TABLE holder (
	digest BLOB PRIMARY KEY,
	key INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE rule (
	id INTEGER PRIMARY KEY,
	stage TEXT NOT NULL,
	rules TEXT NOT NULL,
	UNIQUE (stage, rules)
);
CREATE TABLE refusal (
	key INTEGER NOT NULL,
	target INTEGER NOT NULL,
	rule INTEGER NOT NULL,
	vals BLOB,
	PRIMARY KEY (key, target)
) WITHOUT ROWID;
CREATE TABLE letter (
	key INTEGER NOT NULL,
	target INTEGER NOT NULL,
	uidl TEXT NOT NULL,
	header_hash TEXT NOT NULL,
	ordinal INTEGER NOT NULL,
	letter TEXT NOT NULL,
	PRIMARY KEY (key, target)
) WITHOUT ROWID;
CREATE TABLE suspect (
	key INTEGER NOT NULL,
	target INTEGER NOT NULL,
	deaths INTEGER NOT NULL,
	PRIMARY KEY (key, target)
) WITHOUT ROWID;
CREATE TABLE remembered (
	key TEXT PRIMARY KEY,
	value BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE account (
	source TEXT PRIMARY KEY,
	run INTEGER NOT NULL,
	began INTEGER NOT NULL,
	ended INTEGER NOT NULL,
	state INTEGER NOT NULL,
	until INTEGER NOT NULL,
	error TEXT NOT NULL,
	hint TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE mailbox (
	source TEXT NOT NULL,
	mailbox TEXT NOT NULL,
	run INTEGER NOT NULL,
	state INTEGER NOT NULL,
	uid_validity INTEGER NOT NULL,
	server INTEGER NOT NULL,
	listed INTEGER NOT NULL,
	sums TEXT NOT NULL,
	PRIMARY KEY (source, mailbox)
) WITHOUT ROWID;
CREATE TABLE finished (
	key INTEGER PRIMARY KEY,
	flag TEXT NOT NULL
);
CREATE TABLE spent (
	source TEXT NOT NULL,
	slot INTEGER NOT NULL,
	octets INTEGER NOT NULL,
	PRIMARY KEY (source, slot)
) WITHOUT ROWID;
CREATE TABLE run (
	id INTEGER PRIMARY KEY,
	started TEXT NOT NULL,
	finished TEXT,
	exit INTEGER
);
`
