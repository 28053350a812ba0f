package fleet

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a [time.Duration] that must be written with a unit.
type Duration time.Duration

// Seconds is a [time.Duration] that may also be written as bare seconds, as
// the original system's keys are.
type Seconds time.Duration

// D returns d as a [time.Duration].
func (d Duration) D() time.Duration { return time.Duration(d) }

// D returns s as a [time.Duration].
func (s Seconds) D() time.Duration { return time.Duration(s) }

func (d Duration) String() string { return shortDuration(d.D()) }
func (s Seconds) String() string  { return shortDuration(s.D()) }

// MarshalText writes d as UnmarshalText reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// MarshalText writes s as UnmarshalText reads it.
func (s Seconds) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a duration with its unit.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := parseDuration(string(text), false)
	if err == nil {
		*d = Duration(v)
	}
	return err
}

// UnmarshalText reads a duration with its unit, or bare seconds.
func (s *Seconds) UnmarshalText(text []byte) error {
	v, err := parseDuration(string(text), true)
	if err == nil {
		*s = Seconds(v)
	}
	return err
}

func parseDuration(s string, bare bool) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if seconds, ferr := strconv.ParseFloat(s, 64); ferr == nil && s != "0" {
		if !bare {
			return 0, fmt.Errorf("%q has no unit (did you mean %ss?)", s, s)
		}
		if d, err = time.ParseDuration(s + "s"); err != nil {
			return 0, fmt.Errorf("%q is not a number of seconds; %v is too much or not a number", s, seconds)
		}
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration such as 500ms, 30s, 2m or 1h30m", s)
	case d < 0:
		return 0, errors.New("a duration cannot be negative")
	}
	return d, nil
}

// shortDuration is time.Duration.String without units that are zero: 2m, not
// 2m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
