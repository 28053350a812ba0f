package fleet

// Keys names everything the fleet keeps in Redis. Prefix is one config value
// (default "sg:"); the names after it are fixed, those marked (seed) because
// services of the original system use them on the same server.
type Keys struct{ Prefix string }

// Channel is the pub/sub channel ops are broadcast on, a sibling of the
// original system's sg:channel:cancel.
func (k Keys) Channel() string { return k.Prefix + "channel:control" }

// ReplyPrefix is what every reply key starts with; a legacy op may name only a
// reply key below it.
func (k Keys) ReplyPrefix() string { return k.Prefix + "control:reply:" }

// Reply is the list that acks of op id are pushed to.
func (k Keys) Reply(id string) string { return k.ReplyPrefix() + id }

// Release tells the gateways of op id to "go" or to "abort".
func (k Keys) Release(id string) string { return k.Prefix + "control:release:" + id }

// Pull is the lock that dedupes pulls of one checkout on one host (seed).
func (k Keys) Pull(host, path string) string { return k.Prefix + "control:pull:" + host + ":" + path }

// Pulled holds the outcome of the newest pull of one checkout on one host.
func (k Keys) Pulled(host, path string) string {
	return k.Prefix + "control:pulled:" + host + ":" + path
}

// Seen is the replay guard of one instance for op id.
func (k Keys) Seen(instance, id string) string {
	return k.Prefix + "control:seen:" + instance + ":" + id
}

// Self remembers a restart of its own that an instance has queued.
func (k Keys) Self(instance string) string { return k.Prefix + "control:self:" + instance }

// Live is the hash instance → heartbeat JSON.
func (k Keys) Live() string { return k.Prefix + "control:live" }

// Hold is the hash target → hold JSON.
func (k Keys) Hold() string { return k.Prefix + "control:hold" }

// Rollout is the fleet's one rollout lock and its progress.
func (k Keys) Rollout() string { return k.Prefix + "control:rollout" }

// History is the stream of ops, decisions and outcomes.
func (k Keys) History() string { return k.Prefix + "control:history" }
