package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// legacyAckPattern attributes the text answers of the simulated legacy peers.
const legacyAckPattern = `^(?P<service>[A-Za-z0-9._-]+)@(?P<host>[A-Za-z0-9._-]+): `

// legacyRestartDelay is how long the original system's service lets its answer
// get out before it restarts itself.
const legacyRestartDelay = time.Second

// runLegacy is a life of a service of the original system: it hears plain ops
// for everybody, its tier or itself, answers in text under the op's reply key,
// and restarts itself. It knows neither ids nor expiry nor acks.
func runLegacy(ctx context.Context, inc *incarnation) error {
	p := inc.proc
	client, err := control.Connect(p.host.cfg, control.ConnectOptions{Dialer: inc.dialer, Name: "legacy"})
	if err != nil {
		return err
	}
	defer client.Close()
	for n := 0; ctx.Err() == nil; n++ {
		l := &legacyService{inc: inc, client: client}
		l.listen(ctx)
		// One subscription after another, at an instant of its own.
		pause := time.Second + time.Duration(inc.tokens.Int64N(int64(time.Second)))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

type legacyService struct {
	inc    *incarnation
	client *control.Client
}

// listen obeys until the subscription breaks.
func (l *legacyService) listen(ctx context.Context) {
	cfg := l.inc.proc.host.cfg
	sub := l.client.Subscribe(ctx, cfg.Keys().Channel())
	// Receive ignores a cancelled context: closing ends it.
	stop := context.AfterFunc(ctx, func() { sub.Close() })
	defer func() {
		stop()
		sub.Close()
	}()
	for {
		m, err := sub.ReceiveMessage(ctx)
		if err != nil {
			return
		}
		if err := l.obey(ctx, m.Payload); errors.Is(err, redis.ErrClosed) {
			return
		}
	}
}

func (l *legacyService) obey(ctx context.Context, payload string) error {
	cfg, unit := l.inc.proc.host.cfg, l.inc.proc.unit
	var op map[string]any
	if json.Unmarshal([]byte(payload), &op) != nil {
		return nil
	}
	target, _ := op["target"].(string)
	self, err := fleet.ParseInstance(l.inc.proc.instance)
	if err != nil || !slices.Contains([]string{fleet.TargetAll, unit.tier, self.Service}, target) {
		return nil
	}
	answer := "pulled"
	if op["op"] == "restart" {
		answer = "restarting"
	}
	key, _ := op[cfg.Legacy.ReplyField].(string)
	if key != "" {
		text := fmt.Sprintf("%s@%s: %s", self.Service, self.Host, answer)
		_, err := l.client.TxPipelined(ctx, func(tx redis.Pipeliner) error {
			tx.RPush(ctx, key, text)
			tx.Expire(ctx, key, control.ReplyLife)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if op["op"] != "restart" {
		return nil
	}
	select {
	case <-time.After(legacyRestartDelay + time.Duration(l.inc.tokens.Int64N(int64(time.Second)))):
	case <-ctx.Done():
		return nil
	}
	_, err = simUnits{l.inc}.Restart(ctx, unit.name, false)
	return err
}
