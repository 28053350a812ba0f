package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sgfleet/sgfleet/control/redistest"
	"github.com/sgfleet/sgfleet/opsexec"
	"github.com/sgfleet/sgfleet/opsexec/systemd"
)

// fakeBus is a fakeUnits with D-Bus's knowledge of the daemon's unit, and with
// a polkit.
type fakeBus struct {
	fakeUnits
	self   systemd.Service
	may    []string // the units that may be restarted
	askErr error
}

func (f *fakeBus) Service(context.Context, string) (systemd.Service, error) { return f.self, nil }

func (f *fakeBus) MayRestart(_ context.Context, _ int, _ uint32, unit string) (bool, error) {
	return slices.Contains(f.may, unit), f.askErr
}

// sgfleetOn runs sgfleet on a host whose systemd is f.
func sgfleetOn(t *testing.T, f opsexec.Units, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, args: args, systemd: func() opsexec.Units { return f }}
	root := a.root()
	root.SetArgs(args)
	code = a.exit(root.ExecuteContext(t.Context()))
	return code, out.String(), errs.String()
}

func newFakeBus(acts map[string]string, self systemd.Service) *fakeBus {
	return &fakeBus{fakeUnits: fakeUnits{units: map[string]*opsexec.Unit{}, acts: acts}, self: self}
}

// hostConfig makes this process one of a host that serves web from checkout.
func hostConfig(t *testing.T, redis, checkout string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf("host: h1\nredis: {url: %q}\nservices:\n  web: {checkout: %q}\n", redis, checkout)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SGFLEET_CONFIG", file)
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
}

func wants(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, w := range wants {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in:\n%s", w, text)
		}
	}
}

// A machine where the package is installed and no daemon is enabled is an
// operator's.
func TestDoctorOperator(t *testing.T) {
	server := redistest.Start(t)
	hostConfig(t, "redis://"+server.Addr+"/0", "/srv/none")
	f := newFakeBus(map[string]string{"sgfleet.service": "stopped"}, systemd.Service{User: "nobody", FileState: "disabled"})
	code, out, _ := sgfleetOn(t, f, "doctor")
	wants(t, out, "skip  daemon: sgfleet.service is installed but not enabled here")
	if code != 0 || strings.Contains(out, "fail") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	f.self.FileState = "enabled"
	if code, out, _ = sgfleetOn(t, f, "doctor"); code != exitError {
		t.Errorf("exit %d for a daemon that ought to run", code)
	}
	wants(t, out, "fail  daemon: sgfleet.service is inactive", "→ systemctl start sgfleet")
	f.units["sgfleet.service"].ActiveState = "activating" // to start it would wait without end
	_, out, _ = sgfleetOn(t, f, "doctor")
	wants(t, out, "fail  daemon: sgfleet.service is starting and not subscribed yet", "→ journalctl -n 20 -u sgfleet.service")
}

// A checkout has to be that of the daemon's user, whoever runs doctor.
func TestDoctorCheckout(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	server := redistest.Start(t)
	dir, err := os.MkdirTemp("", "doctor") // nobody has to get there: not t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	git := "cd " + dir + " && git init -q && git -c user.name=x -c user.email=x@x commit -q --allow-empty -m x && git rev-parse HEAD"
	head, err := exec.Command("sh", "-c", git).Output()
	if err != nil {
		t.Fatal(err)
	}
	hostConfig(t, "redis://"+server.Addr+"/0", dir)
	f := newFakeBus(nil, systemd.Service{User: "nobody", FileState: "enabled"})

	code, out, _ := sgfleetOn(t, f, "doctor")
	wants(t, out, "fail  "+dir+": "+dir+" belongs to root, but sgfleet runs as nobody: chown -R nobody "+dir)
	if code != exitError || strings.Contains(out, "chown -R root") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if out, err := exec.Command("chown", "-R", "nobody", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, out, _ = sgfleetOn(t, f, "doctor")
	wants(t, out, fmt.Sprintf("ok    %s: at %.10s", dir, head))
}

// That the units are there does not say that the daemon may restart them.
func TestDoctorPolkit(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	server := redistest.Start(t)
	hostConfig(t, "redis://"+server.Addr+"/0", "")
	f := newFakeBus(nil, systemd.Service{User: "nobody", FileState: "enabled"})
	code, out, _ := sgfleetOn(t, f, "doctor")
	wants(t, out, "ok    stargazer-web.service: web@h1 is active",
		"fail  polkit: nobody may not restart stargazer-web.service, sgfleet.service",
		`→ in /etc/polkit-1/rules.d/50-sgfleet.rules: polkit.addRule(`, `s.user == "nobody"`, `["stargazer-web.service", "sgfleet.service"].indexOf(`, `"try-restart"].indexOf(a.lookup("verb"))`)
	if code != exitError {
		t.Errorf("exit %d", code)
	}
	f.may = []string{"stargazer-web.service"} // and not itself, which an op may ask for as well
	_, out, _ = sgfleetOn(t, f, "doctor")
	wants(t, out, "fail  polkit: nobody may not restart sgfleet.service")
	f.may = append(f.may, "sgfleet.service")
	_, out, _ = sgfleetOn(t, f, "doctor")
	wants(t, out, "ok    polkit: nobody may restart 2 units")
	f.askErr = fmt.Errorf("asking polkit: nobody there")
	_, out, _ = sgfleetOn(t, f, "doctor")
	wants(t, out, "fail  polkit: nobody may restart nothing: asking polkit", "→ apt-get install polkitd")
	f.self.User = ""
	if _, out, _ = sgfleetOn(t, f, "doctor"); strings.Contains(out, "polkit") {
		t.Errorf("root needs no polkit:\n%s", out)
	}
}

// The password that the daemon has as a credential: root reads the file, others
// hear which one it is.
func TestCredentialOfTheUnit(t *testing.T) {
	server := redistest.Start(t)
	if err := server.Client().ConfigSet(t.Context(), "requirepass", "s3cret").Err(); err != nil {
		t.Fatal(err)
	}
	hostConfig(t, "redis://"+server.Addr+"/0", "")
	file := filepath.Join(t.TempDir(), "redis-password")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cred := systemd.Credential{Property: "LoadCredential", Name: "redis-password", Path: file}
	f := newFakeBus(nil, systemd.Service{FileState: "enabled", Credentials: []systemd.Credential{cred}})

	_, out, _ := sgfleetOn(t, f, "doctor")
	wants(t, out, "ok    redis: redis://"+server.Addr+"/0 answers in", "(with the credential redis-password of sgfleet.service, read from "+file+")")

	if os.Geteuid() == 0 {
		f.self.Credentials[0].Path = filepath.Join(t.TempDir(), "away")
		_, out, _ = sgfleetOn(t, f, "doctor")
		wants(t, out, "fail  redis: there is no "+f.self.Credentials[0].Path, "→ install -m 0600 /dev/stdin "+f.self.Credentials[0].Path)
	}

	// As for anybody but root.
	f.self.Credentials[0].Path = "away" // one of systemd's own store
	_, out, _ = sgfleetOn(t, f, "doctor")
	wants(t, out, "skip  redis: not asked: the password is the credential redis-password ("+f.self.Credentials[0].Path+") of sgfleet.service",
		"→ sudo systemd-run -qP --wait -p LoadCredential=redis-password:")

	code, _, errs := sgfleetOn(t, f, "services", "web")
	wants(t, errs, "NOAUTH", "the credential redis-password", "nothing outside that unit sees", "sgfleet services web")
	if code != exitError {
		t.Errorf("exit %d", code)
	}

	// Without such a credential: who was asked as, and what is to be set.
	f.self.Credentials = nil
	_, _, errs = sgfleetOn(t, f, "services")
	wants(t, errs, "was asked as user default (redis.username is not set) with no password", "redis.password_file")
	t.Setenv("SGFLEET_REDIS_USERNAME", "sg-operator")
	t.Setenv("SGFLEET_REDIS_PASSWORD_FILE", file)
	_, _, errs = sgfleetOn(t, f, "services")
	wants(t, errs, "WRONGPASS", "was asked as user sg-operator (redis.username, SGFLEET_REDIS_USERNAME) with the password in "+
		file+" (redis.password_file, SGFLEET_REDIS_PASSWORD_FILE)")
}
