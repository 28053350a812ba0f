package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
	"github.com/sgfleet/sgfleet/opsexec/systemd"
)

func init() { commands = append(commands, (*app).daemonCmd) }

func (a *app) daemonCmd() *cobra.Command {
	var services []string
	var logFormat, logLevel string
	cmd := &cobra.Command{
		Use: "daemon", Short: "Serve this host: obey ops, send heartbeats",
		Long: `The daemon subscribes to the fleet's channel and restarts and pulls this host's
services as ops ask. It runs as a systemd unit (Type=notify). SIGHUP reads the
config again; a valid one is in force as soon as no op is under way, after two
minutes in any case. SIGTERM lets a running op finish and begins nothing new.`,
		Example: `  sgfleet daemon --config /etc/sgfleet/config.yaml
  sgfleet daemon --service web         only this one of the host's services`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(a.stderr, logFormat, logLevel)
			if err != nil {
				return err
			}
			h := &hostDaemon{app: a, log: log, services: services, metrics: &control.Metrics{}}
			return h.run(cmd.Context())
		},
	}
	cmd.Flags().StringSliceVar(&services, "service", nil, "serve only this `SERVICE` of the host (repeatable)")
	cmd.Flags().StringVar(&logFormat, "log-format", "auto", strings.Join(logFormats, ", "))
	cmd.Flags().StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	complete(cmd, "log-format", logFormats...)
	return cmd
}

// hostDaemon runs a control.Daemon with the real host behind it, and again
// with a new config after SIGHUP.
type hostDaemon struct {
	*app
	log      *slog.Logger
	services []string
	metrics  *control.Metrics
	starts   opsexec.StartBudget // of all the daemons that reloads begin, as is cooldown
	cooldown opsexec.Cooldown
}

// slowestBeat is how long a healthy daemon may go without feeding systemd's
// watchdog: its reader waits 12 s for a silent Redis before it gets on.
const slowestBeat = 12 * time.Second

// reloadPatience is how long a reload waits for ops: ended for it, those that
// have not begun would be refused, and the host would hear nothing while those
// that run come to their end. Gateways that wait for their release may take
// this long.
const reloadPatience = 2 * time.Minute

var errReload = errors.New("config reloaded")

func (h *hostDaemon) run(ctx context.Context) error {
	cfg, err := h.loadConfig()
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		// The heap is about 2 MB and grows by a heartbeat at a time: collecting
		// four times as often costs nothing that can be measured.
		debug.SetGCPercent(25)
	}
	if every, err := systemd.WatchdogInterval(); err != nil {
		h.log.Warn("watchdog", "err", err)
	} else if every > 0 && every < slowestBeat {
		h.log.Warn("the unit's WatchdogSec is too short: systemd may kill this daemon while it waits for redis", "is", 2*every, "needs", 2*slowestBeat)
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		next, err := h.serve(ctx, cfg, hup)
		if err != nil || next == nil {
			return err
		}
		cfg = next
	}
}

// loadConfig reads the config and is loud about one that names no services: a
// host without a config joins the fleet with the defaults' services, whether it
// has them or not.
func (h *hostDaemon) loadConfig() (*fleet.Config, error) {
	cfg, sources, err := h.loadSources()
	if err == nil && sources.DefaultServices() && h.services == nil {
		h.log.Warn(defaultServices(cfg)+"; write down what it really runs: "+initCommand, "config", configFiles(cfg, sources))
	}
	return cfg, err
}

// serve runs one daemon until ctx ends (nil), it fails, or SIGHUP brings a
// config that is valid; an invalid one is logged and the old one stays.
func (h *hostDaemon) serve(ctx context.Context, cfg *fleet.Config, hup <-chan os.Signal) (*fleet.Config, error) {
	c, err := h.connect(cfg)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	units, closeUnits := hostUnits(ctx, h.log)
	defer closeUnits()
	var reloading atomic.Bool
	d := &control.Daemon{
		Config: cfg, Client: c, Identity: identity(), Version: cli.Version(),
		Exec: opsexec.OSExec, Tree: opsexec.OSTree{}, Units: units, GitEnv: gitEnv(cfg),
		Journal:  opsexec.JournalLines(opsexec.OSExec, journalLines),
		Services: h.services, Log: h.log, Metrics: h.metrics, Starts: &h.starts, Cooldown: &h.cooldown,
		Notify: func(state string) {
			if reloading.Load() && state == systemd.Stopping {
				return // this daemon ends, the process does not
			}
			if err := systemd.Notify(state); err != nil {
				h.log.Warn("sd_notify", "err", err)
			}
		},
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopMetrics, err := h.serveMetrics(cfg.Metrics.Listen)
	if err != nil {
		return nil, err
	}
	defer stopMetrics()

	ended := make(chan error, 1)
	h.log.Info("starting", "version", cli.Version(), "host", cfg.Host, "redis", redactURL(cfg.Redis.URL), "mode", cfg.Mode, "pid", os.Getpid())
	go func() { ended <- d.Run(ctx) }()
	var next *fleet.Config
	var idle <-chan struct{}
	var patience <-chan time.Time
	reload := func() {
		idle, patience = nil, nil
		reloading.Store(true)
		_ = systemd.Notify(systemd.Reloading()) // READY=1 of the new one ends it
		cancel(errReload)
	}
	for {
		select {
		case err := <-ended:
			if next != nil {
				return next, nil
			}
			if err == nil {
				h.log.Info("stopped")
			}
			return nil, err
		case <-hup:
			fresh, err := h.loadConfig()
			if err != nil {
				h.log.Error("config not reloaded, the old one stays", "err", err)
				continue
			}
			h.log.Info("config read, in force as soon as no op is under way", "at_most", reloadPatience)
			next = fresh
			idle, patience = d.Idle(), time.After(reloadPatience)
		case <-idle:
			reload()
		case <-patience:
			h.log.Warn("ops are still under way: ending them for the new config")
			reload()
		}
	}
}

// journalLines is how many of a failed unit's last lines go into the ack.
const journalLines = 5

// hostUnits returns systemd over D-Bus, and the systemctl command where there
// is no bus to connect to.
func hostUnits(ctx context.Context, log *slog.Logger) (opsexec.Units, func()) {
	bus := systemd.New("")
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := bus.Show(ctx, "sgfleet.service")
	if err == nil || !errors.Is(err, opsexec.ErrBusLost) {
		return bus, bus.Close
	}
	bus.Close()
	systemctl := opsexec.Systemctl{Exec: opsexec.OSExec}
	if _, err := systemctl.Show(ctx, "sgfleet.service"); err != nil {
		log.Error("no systemd on this host, neither over D-Bus nor by systemctl: restarts will fail, pulls work", "err", err)
	} else {
		log.Warn("no D-Bus connection to systemd, using systemctl", "err", err)
	}
	return systemctl, func() {}
}

// gitEnv is what git may see of this process's environment and home.
func gitEnv(cfg *fleet.Config) opsexec.GitEnv {
	env := opsexec.GitEnv{SSHKey: cfg.Git.SSHKey, KnownHosts: cfg.Git.KnownHosts, AllowFile: cfg.Git.AllowFile}
	env.Home, _ = os.UserHomeDir()
	for _, name := range cfg.Git.PassEnv {
		if v, ok := os.LookupEnv(name); ok {
			env.Pass = append(env.Pass, name+"="+v)
		}
	}
	return env
}

// serveMetrics serves /metrics at addr; empty means nowhere. The returned
// function stops it and waits.
func (h *hostDaemon) serveMetrics(addr string) (func(), error) {
	if addr == "" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serving metrics (metrics.listen): %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = h.metrics.WriteText(w) // a scraper that hangs up is its own affair
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			h.log.Error("metrics", "err", err)
		}
	}()
	return func() {
		srv.Close()
		<-done
	}, nil
}
