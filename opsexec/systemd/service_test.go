package systemd

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"

	"github.com/sgfleet/sgfleet/opsexec/systemd/systemdtest"
)

// polkit is an authority that lets user 7's process 42 restart web.service.
type polkit struct{}

type polkitAnswer struct {
	Yes, Challenge bool
	Details        map[string]string
}

func (polkit) CheckAuthorization(subject struct {
	Kind    string
	Details map[string]dbus.Variant
}, action string, details map[string]string, _ uint32, _ string,
) (polkitAnswer, *dbus.Error) {
	process := subject.Kind == "unix-process" && subject.Details["pid"].Value() == uint32(42) && subject.Details["uid"].Value() == int32(7)
	yes := process && action == "org.freedesktop.systemd1.manage-units" && details["unit"] == "web.service" && details["verb"] == "restart"
	return polkitAnswer{Yes: yes, Challenge: !yes, Details: map[string]string{}}, nil
}

func TestService(t *testing.T) {
	h := systemdtest.Boot(t, map[string]string{
		"daemon.service": unit(t, "", "User=nobody", "LoadCredential=redis-password:/etc/hostname",
			"LoadCredentialEncrypted=other:/etc/other") + "[Install]\nWantedBy=default.target\n",
		"plain.service": unit(t, ""),
	})
	b := bus(t, h)
	got, err := b.Service(t.Context(), "daemon")
	want := Service{User: "nobody", FileState: "disabled", Credentials: []Credential{
		{"LoadCredential", "redis-password", "/etc/hostname"}, {"LoadCredentialEncrypted", "other", "/etc/other"},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	if got, err := b.Service(t.Context(), "plain.service"); err != nil || !reflect.DeepEqual(got, Service{FileState: "static"}) {
		t.Errorf("got %+v, %v; want a static unit of root's", got, err)
	}
}

func TestMayRestart(t *testing.T) {
	b := New(privateBus(t))
	t.Cleanup(b.Close)
	if _, err := b.MayRestart(t.Context(), 42, 7, "web"); err == nil {
		t.Error("no polkit, but an answer")
	}
	c, err := dbus.Connect(b.address, dbus.WithContext(t.Context()), dbus.WithAuth(dbus.AuthExternal(strconv.Itoa(os.Getuid()))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	reply, nameErr := c.RequestName("org.freedesktop.PolicyKit1", dbus.NameFlagDoNotQueue)
	err = c.Export(polkit{}, "/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority")
	if err := errors.Join(nameErr, err); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("cannot be polkit: %v, %v", reply, err)
	}
	for unit, want := range map[string]bool{"web": true, "ssh.service": false} {
		if got, err := b.MayRestart(t.Context(), 42, 7, unit); err != nil || got != want {
			t.Errorf("may restart %s: %v, %v; want %v", unit, got, err, want)
		}
	}
}

// privateBus is a bus on which anybody may be anything; it returns the address.
func privateBus(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "bus.conf")
	text := "<busconfig><listen>unix:path=" + filepath.Join(dir, "bus") + "</listen><auth>EXTERNAL</auth>" +
		`<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--nofork", "--print-address", "--config-file="+config)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "" {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n') // printed when it listens
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(address)
}
