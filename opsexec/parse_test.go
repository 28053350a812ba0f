package opsexec

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestParseStatus(t *testing.T) {
	id := strings.Repeat("a", 40)
	head := "# branch.oid " + id + "\x00# branch.head main\x00# branch.upstream origin/main\x00# branch.ab +0 -0\x00"
	entry := " N... 100644 100644 100644 " + id + " " + id + " "
	tests := map[string]struct {
		out     string
		want    gitStatus
		wantErr string
	}{
		"clean":    {out: head, want: gitStatus{head: id, branch: "main", upstream: "origin/main"}},
		"detached": {out: "# branch.oid " + id + "\x00# branch.head (detached)\x00", want: gitStatus{head: id}},
		"changed": {
			out:  head + "1 .M" + entry + "a file\x001 A." + entry + "b\nnewline\x00",
			want: gitStatus{head: id, branch: "main", upstream: "origin/main", changed: []string{"a file", "b\nnewline"}},
		},
		"renamed": {
			out:  head + "2 R." + entry + "R100 new name\x00old name\x001 M." + entry + "c\x00",
			want: gitStatus{head: id, branch: "main", upstream: "origin/main", changed: []string{"new name", "c"}},
		},
		"unmerged": {
			out:  head + "u UU N... 100644 100644 100644 100644 " + id + " " + id + " " + id + " x\x00",
			want: gitStatus{head: id, branch: "main", upstream: "origin/main", changed: []string{"x"}},
		},
		"warnings": {
			out:  "warning: something\nhint: do this\n" + head + "warning: odd\n1 .M" + entry + "a\x00",
			want: gitStatus{head: id, branch: "main", upstream: "origin/main", changed: []string{"a"}},
		},
		"no commit":    {out: "# branch.oid (initial)\x00# branch.head main\x00", wantErr: "has no commit yet"},
		"empty":        {out: "", wantErr: "no revision in its answer"},
		"not a number": {out: "# branch.oid HEAD\x00", wantErr: "no revision in its answer"},
	}
	for name, tt := range tests {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			got, err := parseStatus(tt.out)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil || got.head != tt.want.head || got.branch != tt.want.branch ||
				got.upstream != tt.want.upstream || !slices.Equal(got.changed, tt.want.changed) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

func FuzzParseStatus(f *testing.F) {
	id := strings.Repeat("a", 40)
	f.Add("# branch.oid " + id + "\x00# branch.head main\x001 .M N... 1 1 1 " + id + " " + id + " x\x002 R. a\x00")
	f.Fuzz(func(t *testing.T, out string) {
		s, err := parseStatus(out)
		if err == nil && !objectName.MatchString(s.head) {
			t.Errorf("head %q", s.head)
		}
		if len(s.changed) > 0 && strings.ContainsAny(ChatLine(s.dirtyError("/d").Error()), "\n\x1b\x00") {
			t.Errorf("unfit for chat: %q", s.changed)
		}
	})
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"", "origin", "main", "release/1.2", "fix-1", "a_b", "user@host", "ünï"} {
		if err := checkName("branch", good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"-b", "--upload-pack=x", "a b", "a..b", "a:b", "+a", "a\n", ".hid", "a.lock", "/a", "a/", "a//b", "a@{1}", "a~1", "a^", "a*", "a?", "[a", `a\b`} {
		if err := checkName("branch", bad); err == nil && bad != "+a" {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestGitEnviron(t *testing.T) {
	e := GitEnv{Pass: []string{"HTTPS_PROXY=http://p"}, Home: "/h", SSHKey: "/k'e y", KnownHosts: "/kh"}
	got, err := e.environ()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"HOME=/h", "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false", "SSH_ASKPASS=/bin/false",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ALLOW_PROTOCOL=https:ssh", "HTTPS_PROXY=http://p",
		"GIT_SSH_COMMAND=ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=10 -oServerAliveInterval=5" +
			` -oServerAliveCountMax=3 -oControlMaster=no -oControlPath=none -oIdentitiesOnly=yes -i '/k'\''e y' -oUserKnownHostsFile='"/kh"'`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("missing %s in\n%s", want, strings.Join(got, "\n"))
		}
	}
	for _, bad := range []GitEnv{{Pass: []string{"NAME"}}, {Pass: []string{"=x"}}, {Pass: []string{"A=\x00"}}, {SSHKey: "a\nb"}, {KnownHosts: `a"b`}} {
		if _, err := bad.environ(); err == nil {
			t.Errorf("%+v passes", bad)
		}
	}
}

// Anything may import opsexec, so it imports the standard library only.
func TestImportsStandardLibraryOnly(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	if got, want := strings.Fields(string(out)), []string{"github.com/sgfleet/sgfleet/opsexec"}; !slices.Equal(got, want) {
		t.Errorf("imports %v, want only the standard library and itself", got)
	}
}

// Why a remote cannot be read ssh says before git does.
func TestExcerptOfRemote(t *testing.T) {
	const unread = "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.\n"
	for _, tt := range []struct{ output, want, advice string }{
		{"git@hub: Permission denied (publickey).\n" + unread, "git@hub: Permission denied (publickey)", "git.ssh_key"},
		{
			"Load key \"/run/key\": error in libcrypto\ngit@hub: Permission denied (publickey).\n" + unread,
			`Load key "/run/key": error in libcrypto; git@hub: Permission denied (publickey)`, "no private key",
		},
		{
			"No ED25519 host key is known for hub and you have requested strict checking.\nHost key verification failed.\n" + unread,
			"No ED25519 host key is known for hub and you have requested strict checking; Host key verification failed", "git.known_hosts",
		},
		{"ssh: Could not resolve hostname hub: Name or service not known\n" + unread, "ssh: Could not resolve hostname hub: Name or service not known", ""},
		{unread, "fatal: Could not read from remote repository.", ""},
		{"ERROR: Repository not found.\n" + unread, "ERROR: Repository not found.", ""},
		{"hello\nfatal: couldn't find remote ref main\n", "fatal: couldn't find remote ref main", ""},
	} {
		got := excerpt(tt.output)
		if got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
		err := remoteAdvice(errors.New(got))
		if advised := err.Error() != got; advised != (tt.advice != "") || !strings.Contains(err.Error(), tt.advice) {
			t.Errorf("advice %v\nwant %q", err, tt.advice)
		}
	}
}
