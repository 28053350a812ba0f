package opsexec

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Cooldown{Every: 30 * time.Second}
		check := func(op, target string, want time.Duration) {
			t.Helper()
			err := c.Check(op, target)
			var refused *CooldownError
			if errors.As(err, &refused); (want > 0) != (refused != nil) || refused != nil && refused.Left != want {
				t.Errorf("Check(%s, %s) = %v, want %v left", op, target, err, want)
			}
		}
		check("restart", "web", 0)
		check("restart", "web", 0) // no success yet
		c.Start("restart", "web")
		check("restart", "web", 30*time.Second)
		check("restart", "bot", 0)
		check("pull", "web", 0)
		time.Sleep(29*time.Second + 500*time.Millisecond)
		check("restart", "web", 500*time.Millisecond)
		want := "restart of web was done a moment ago, again in 1s"
		if err := c.Check("restart", "web"); err.Error() != want {
			t.Errorf("got  %q\nwant %q", err, want)
		}
		time.Sleep(500 * time.Millisecond)
		check("restart", "web", 0)
	})
}

func TestCooldownForgetsOldTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Cooldown{Every: time.Second}
		for i := range 1000 {
			c.Start("restart", string(rune('a'+i)))
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(c.done); n > 11 {
			t.Errorf("%d entries kept, want at most 11", n)
		}
	})
}

func TestCooldownZeroNeverRefuses(t *testing.T) {
	var c Cooldown
	c.Start("restart", "web")
	if err := c.Check("restart", "web"); err != nil {
		t.Error(err)
	}
}
