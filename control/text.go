package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sgfleet/sgfleet/fleet"
)

// The chat commands that are not of the form !op_target. (seed)
const (
	textServices     = "!services"
	textBotPull      = "!bot_pull"
	textBotRestart   = "!bot_restart"
	textProxyRestart = "!proxy_restart"
)

// textOps are the ops that a chat command may name: !restart_all,
// !pull_inference, !update_web.
var textOps = []string{OpRestart, OpPull, OpUpdate}

// OpFor maps a chat command to the fleet op and target that it means:
// !restart_all, !restart_TIER, !pull_all, !pull_TIER, !update_all,
// !update_TIER, and !bot_pull, which pulls all. Anything else is not ok,
// !bot_restart and !proxy_restart included: those restart one local unit (see
// [LocalUnitFor]). Without tiers the original's five are meant.
//
// It is the original's control_op_for.
func OpFor(text string, tiers ...string) (op, target string, ok bool) {
	if len(tiers) == 0 {
		tiers = fleet.ServiceTiers
	}
	text = strings.TrimSpace(text)
	if text == textBotPull {
		return OpPull, fleet.TargetAll, true
	}
	op, target, ok = cutCommand(text)
	if !ok || target != fleet.TargetAll && !slices.Contains(tiers, target) {
		return "", "", false
	}
	return op, target, true
}

// IsControlCommand reports whether text is a fleet command: one that [OpFor]
// knows, or !services. It is the original's is_control_ops_command.
func IsControlCommand(text string, tiers ...string) bool {
	_, _, ok := OpFor(text, tiers...)
	return ok || strings.TrimSpace(text) == textServices
}

// LocalUnitFor maps the single-service commands to the local systemd unit that
// they restart: !proxy_restart to control_proxy_unit, !bot_restart to
// control_bot_unit. ok says that text is such a command; the unit being unset
// is an error.
func LocalUnitFor(text string, cfg *fleet.Config) (unit string, ok bool, err error) {
	var key string
	switch strings.TrimSpace(text) {
	case textBotRestart:
		unit, key = cfg.ControlBotUnit, "control_bot_unit"
	case textProxyRestart:
		unit, key = cfg.ControlProxyUnit, "control_proxy_unit"
	default:
		return "", false, nil
	}
	if unit == "" {
		return "", true, fmt.Errorf("%s: %s is not set in the config: set it to the unit to restart", strings.TrimSpace(text), key)
	}
	return fleet.ServiceUnit(unit), true, nil
}

// TextCommand is what a line of chat asks for; exactly one of its three forms
// is set.
type TextCommand struct {
	Op, Target string // a fleet op
	Services   bool   // the roster
	LocalUnit  string // restart this unit on this host
}

// ErrNotCommand says that a text is plain chat.
var ErrNotCommand = errors.New("not a control command")

// ParseText reads a line of chat. Plain chat is [ErrNotCommand]; any other
// error is about a text that looks like a command and is not quite one, and
// says what was probably meant. Nothing that is not exact ever runs.
func ParseText(text string, cfg *fleet.Config) (TextCommand, error) {
	text = strings.TrimSpace(text)
	tiers := cfg.TierNames()
	if op, target, ok := OpFor(text, tiers...); ok {
		return TextCommand{Op: op, Target: target}, nil
	}
	if IsControlCommand(text, tiers...) {
		return TextCommand{Services: true}, nil
	}
	if unit, ok, err := LocalUnitFor(text, cfg); ok {
		return TextCommand{LocalUnit: unit}, err
	}
	return TextCommand{}, explainText(text, cfg)
}

// explainText says why text, which is no command, is none.
func explainText(text string, cfg *fleet.Config) error {
	word, rest, _ := strings.Cut(text, " ")
	if !strings.HasPrefix(word, "!") || len(word) > 2*fleet.MaxName || !printable(text) {
		return ErrNotCommand
	}
	known := []string{textServices, textBotPull, textBotRestart, textProxyRestart}
	targets := append([]string{fleet.TargetAll}, cfg.TierNames()...)
	for _, op := range textOps {
		for _, t := range targets {
			known = append(known, "!"+op+"_"+t)
		}
	}
	if rest != "" && slices.Contains(known, word) {
		return fmt.Errorf("%s takes nothing after it: send it alone", word)
	}
	if op, target, ok := cutCommand(word); ok {
		return fmt.Errorf("%s: no tier is called %q (%s)", word, target, tierHint(op, target, targets))
	}
	if n := fleet.Nearest(strings.ToLower(word), known); n != "" && rest == "" {
		return fmt.Errorf("%s is not a command (did you mean %s?)", word, n)
	}
	return ErrNotCommand
}

func tierHint(op, target string, targets []string) string {
	if n := fleet.Nearest(strings.ToLower(target), targets); n != "" {
		return "did you mean !" + op + "_" + n + "?"
	}
	return "known: " + strings.Join(targets, ", ")
}

// cutCommand splits "!op_target" without asking whether the target exists.
func cutCommand(text string) (op, target string, ok bool) {
	body, ok := strings.CutPrefix(text, "!")
	if !ok {
		return "", "", false
	}
	op, target, ok = strings.Cut(body, "_")
	if !ok || !slices.Contains(textOps, op) || !fleet.ValidName(target) {
		return "", "", false
	}
	return op, target, true
}
