package control

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sgfleet/sgfleet/fleet"
)

// legacyPeers attributes the text acks of services of the original system.
type legacyPeers struct {
	pattern                   *regexp.Regexp // nil: nothing is attributed
	service, host, n, failure int            // groups; 0: absent
}

// newLegacyPeers compiles the config's ack pattern. Its groups "service" and
// "host" name the instance; "n", where a host runs several copies, is
// optional; a group "failed" that matched anything says that it did not work.
func newLegacyPeers(cfg *fleet.Config) (*legacyPeers, error) {
	p := &legacyPeers{}
	if cfg.Legacy.AckPattern == "" {
		return p, nil
	}
	re, err := regexp.Compile(cfg.Legacy.AckPattern)
	if err != nil {
		return nil, fmt.Errorf("legacy.ack_pattern: %w", err)
	}
	p.pattern = re
	p.service, p.host = max(0, re.SubexpIndex("service")), max(0, re.SubexpIndex("host"))
	p.n, p.failure = max(0, re.SubexpIndex("n")), max(0, re.SubexpIndex("failed"))
	if p.service == 0 || p.host == 0 {
		return nil, fmt.Errorf("legacy.ack_pattern %q: needs the groups (?P<service>…) and (?P<host>…)", cfg.Legacy.AckPattern)
	}
	return p, nil
}

// ack turns a text answer into an ack. One that names no instance has none:
// somebody answered, who is not known.
func (p *legacyPeers) ack(raw string) Ack {
	text := oneLine(raw, maxDetail)
	a := Ack{Phase: Done, Status: OK, Detail: text}
	if p.pattern == nil {
		return a
	}
	m := p.pattern.FindStringSubmatch(text)
	if m == nil {
		return a
	}
	name := m[p.service] + "@" + m[p.host]
	if p.n > 0 && m[p.n] != "" {
		name += "#" + m[p.n]
	}
	i, err := fleet.ParseInstance(name)
	if err != nil {
		return a
	}
	a.Instance, a.Host = i.String(), i.Host
	if p.failure > 0 && m[p.failure] != "" {
		a.Status = Failed
	}
	return a
}

// decodeReply reads one entry of a reply list: a daemon's ack, or the text of
// a legacy peer.
func (p *legacyPeers) decodeReply(raw string) (a Ack, text bool, err error) {
	if trimmed := strings.TrimLeft(raw, " \t\r\n"); !strings.HasPrefix(trimmed, "{") {
		return p.ack(raw), true, nil
	}
	a, err = DecodeAck([]byte(raw))
	return a, false, err
}

// legacyMembers are the instances that the config lists as legacy.
func legacyMembers(cfg *fleet.Config) ([]fleet.Member, error) {
	members := make([]fleet.Member, 0, len(cfg.Legacy.Instances))
	for _, s := range cfg.Legacy.Instances {
		i, err := fleet.ParseInstance(s)
		if err != nil {
			return nil, fmt.Errorf("legacy.instances: %w", err)
		}
		tier := cfg.Services[i.Service].Tier
		if tier == "" && slices.Contains(cfg.TierNames(), i.Service) {
			tier = i.Service
		}
		members = append(members, fleet.Member{Instance: i, Tier: tier})
	}
	return members, nil
}
