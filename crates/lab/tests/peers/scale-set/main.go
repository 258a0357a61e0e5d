// Command scale-set runs GitHub's own client for scale sets, and its listener, against a lab. It prints one JSON line per
// step. A step that is not as expected ends its scenario; then the exit status is 1.
//
// The token of the forge is in the environment variable TOKEN. Instead of starting a runner itself, the program prints a
// line with the runner's JIT config; its caller starts the runner.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/actions/scaleset"
)

var (
	host  = flag.String("host", "", "address of the forge: http://HOST:PORT")
	scope = flag.String("scope", "", "ORG, OWNER/REPO or enterprises/NAME")
	repo  = flag.String("repo", "", "OWNER/REPO whose workflows queue the jobs; the scope's runners serve it")
	only  = flag.String("only", "", "comma-separated scenarios (default: all)")
	limit = flag.Duration("deadline", time.Minute, "limit for the whole run")
	hold  = flag.Bool("hold", false, "run no scenario, but the listener of one scale set until the deadline")
)

// jobs is the number of jobs that a scenario queues.
const jobs = 3

type check struct {
	ctx      context.Context
	client   *scaleset.Client
	scenario string
	since    time.Time
	failed   bool
}

// stop is the panic that leaves a scenario, past its deferred clean-up.
type stop struct{}

func main() {
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	defer cancel()
	client, err := scaleset.NewClientWithPersonalAccessToken(scaleset.NewClientWithPersonalAccessTokenConfig{
		GitHubConfigURL:     *host + "/" + *scope,
		PersonalAccessToken: os.Getenv("TOKEN"),
		SystemInfo:          scaleset.SystemInfo{System: "dayfly-test"},
	}, scaleset.WithRetryMax(1), scaleset.WithRetryWaitMax(100*time.Millisecond))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	c := &check{ctx: ctx, client: client}
	if *hold {
		c.play(c.holdSet)
		return
	}
	for _, s := range []struct {
		name string
		run  func()
	}{
		{"scale-set", c.scaleSet}, {"session", c.session}, {"refresh", c.refresh}, {"queue", c.queue}, {"capacity", c.capacity},
		{"cancelled", c.cancelled}, {"jit", c.jit}, {"gone", c.gone}, {"listener", c.listener},
	} {
		if *only == "" || strings.Contains(","+*only+",", ","+s.name+",") {
			c.scenario, c.since = s.name, time.Now()
			c.play(s.run)
		}
	}
	if c.failed {
		os.Exit(1)
	}
}

func (c *check) play(scenario func()) {
	defer func() {
		if r := recover(); r != nil && r != (stop{}) {
			panic(r)
		}
	}()
	scenario()
}

var printing sync.Mutex

func printLine(line map[string]any) {
	printing.Lock()
	defer printing.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(line)
}

// report prints one step, and leaves the scenario if there is an error.
func (c *check) report(step string, got any, err error) {
	line := map[string]any{"scenario": c.scenario, "step": step, "ok": err == nil, "ms": time.Since(c.since).Milliseconds()}
	if got != nil {
		line["got"] = got
	}
	if err != nil {
		line["error"] = err.Error()
	}
	printLine(line)
	c.since = time.Now()
	if err != nil {
		c.failed = true
		panic(stop{})
	}
}

// expect reports the error of a call, or else whether its answer is as expected.
func (c *check) expect(step string, err error, asExpected func() bool, got any) {
	if err == nil && !asExpected() {
		err = errors.New("not the expected answer")
	}
	c.report(step, got, err)
}

// refused expects an error that names all of the reasons.
func (c *check) refused(step string, err error, reasons ...string) {
	if err == nil {
		c.report(step, reasons, errors.New("it was accepted"))
	}
	for _, reason := range reasons {
		if !strings.Contains(err.Error(), reason) {
			c.report(step, reasons, err)
		}
	}
	c.report(step, reasons, nil)
}

// newSet makes a scale set of the scenario's own. The returned function deletes it.
func (c *check) newSet() (*scaleset.RunnerScaleSet, func()) {
	name := fmt.Sprintf("%s-%d", c.scenario, time.Now().UnixNano())
	set, err := c.client.CreateRunnerScaleSet(c.ctx, &scaleset.RunnerScaleSet{Name: name, RunnerGroupID: 1})
	c.expect("create scale set", err, func() bool { return set.ID > 0 && set.Name == name && len(set.Labels) == 1 }, set)
	return set, func() { c.report("delete scale set", nil, c.client.DeleteRunnerScaleSet(context.Background(), set.ID)) }
}

func (c *check) newSession(set *scaleset.RunnerScaleSet, o ...scaleset.HTTPOption) (*scaleset.MessageSessionClient, func()) {
	s, err := c.client.MessageSessionClient(c.ctx, set.ID, "owner-1", o...)
	c.expect("create session", err, func() bool { return s.Session().Statistics != nil }, nil)
	return s, func() { c.report("delete session", nil, s.Close(context.Background())) }
}

// next polls until a message is there; GetMessage returns nil for an empty poll.
func (c *check) next(s *scaleset.MessageSessionClient, last int) (m *scaleset.RunnerScaleSetMessage, err error) {
	for m == nil && err == nil {
		m, err = s.GetMessage(c.ctx, last, jobs)
	}
	return m, err
}

func (c *check) mint(set *scaleset.RunnerScaleSet, name string) (*scaleset.RunnerScaleSetJitRunnerConfig, error) {
	return c.client.GenerateJitRunnerConfig(c.ctx, &scaleset.RunnerScaleSetJitRunnerSetting{Name: name, WorkFolder: "_work"}, set.ID)
}
