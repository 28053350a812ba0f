package ansible

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/control/redistest"
)

// rules reads a user's rules as ACL SETUSER takes them: what the README shows
// for a shared server.
func rules(t *testing.T, user string) []any {
	t.Helper()
	f, err := os.Open(filepath.Join("roles/sgfleet_redis/files/acl", user))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	args := []any{"ACL", "SETUSER", "sg-" + user, "on", ">" + user}
	for s := bufio.NewScanner(f); s.Scan(); {
		if !strings.HasPrefix(s.Text(), "#") {
			for _, w := range strings.Fields(s.Text()) {
				args = append(args, w)
			}
		}
	}
	return args
}

// That each user can do its work is shown by the end-to-end tests, which run
// under them; here: that none can do another's.
func TestACLUsersCannotDoAnothersWork(t *testing.T) {
	s := redistest.Start(t)
	for _, user := range []string{"agent", "operator", "roster"} {
		s.Do(rules(t, user)...)
	}
	for _, c := range []struct {
		user    string
		allowed bool
		cmd     string
	}{
		{"agent", true, "RPUSH sg:control:reply:1 ack"},
		{"agent", true, "HSET sg:control:live web@h {}"},
		{"agent", true, "SET sg:control:pull:h:/srv 1 NX PX 1000"},
		{"agent", false, "PUBLISH sg:channel:control op"},  // a stolen agent commands nobody
		{"agent", false, "LRANGE sg:control:reply:1 0 -1"}, // nor reads others' answers
		{"agent", false, "SET sg:control:release:1 go"},    // nor releases a gateway
		{"agent", false, "XADD sg:control:history * a b"},  // nor forges the audit trail
		{"agent", false, "HSET sg:control:hold all {}"},    // nor freezes the fleet
		{"agent", false, "SET other 1"},                    // nor touches anything else
		{"agent", false, "KEYS *"},
		{"agent", false, "EVAL return(1) 0"},
		{"operator", true, "PUBLISH sg:channel:control op"},
		{"operator", true, "LRANGE sg:control:reply:1 0 -1"},
		{"operator", true, "SET sg:control:release:1 go"},
		{"operator", false, "PUBLISH sg:channel:cancel x"},
		{"operator", false, "RPUSH sg:control:reply:1 forged"},
		{"operator", false, "SET sg:control:pull:h:/srv 1"},
		{"operator", false, "FLUSHALL"},
		{"operator", false, "SCAN 0"},
		{"roster", true, "HGETALL sg:control:live"},
		{"roster", false, "HSET sg:control:live web@h {}"},
		{"roster", false, "PUBLISH sg:channel:control op"},
	} {
		client := redis.NewClient(&redis.Options{Addr: s.Addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1, Username: "sg-" + c.user, Password: c.user})
		var args []any
		for _, w := range strings.Fields(c.cmd) {
			args = append(args, w)
		}
		err := client.Do(context.Background(), args...).Err()
		client.Close()
		if denied := err != nil && strings.Contains(err.Error(), "NOPERM"); denied == c.allowed {
			t.Errorf("sg-%s: %s: allowed %v, want %v (%v)", c.user, c.cmd, !denied, c.allowed, err)
		}
	}
}
