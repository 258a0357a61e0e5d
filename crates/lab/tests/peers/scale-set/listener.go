package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/actions/scaleset"
	"github.com/actions/scaleset/listener"
)

// listener has the real listener start a runner per job, tries to remove a busy one, and waits for the end of all jobs.
func (c *check) listener() {
	set, remove := c.newSet()
	defer remove()
	s, end := c.newSession(set)
	defer end()
	folder, err := os.MkdirTemp("", "scale-set")
	c.report("make a folder", nil, err)
	defer os.RemoveAll(folder)
	release := filepath.Join(folder, "go")
	c.offer(set, release)
	l, err := listener.New(s, listener.Config{ScaleSetID: set.ID, MaxRunners: jobs})
	c.report("create listener", nil, err)
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	sc := &scaler{check: c, set: set, release: release, done: cancel}
	if err = l.Run(ctx, sc); c.ctx.Err() == nil && ctx.Err() != nil {
		err = nil // ended by the scaler
	}
	c.expect("every job has run in a runner of its own", err, func() bool {
		return sc.Runners == jobs && sc.Started == jobs && sc.Succeeded == jobs && sc.Refused
	}, sc)
	after, err := c.client.GetRunnerScaleSetByID(c.ctx, set.ID)
	c.expect("the statistics are empty", err, func() bool { return *after.Statistics == scaleset.RunnerScaleSetStatistic{} }, after.Statistics)
}

// holdSet runs the listener of a scale set that gets no jobs.
func (c *check) holdSet() {
	set, remove := c.newSet()
	defer remove()
	s, end := c.newSession(set)
	defer end()
	l, err := listener.New(s, listener.Config{ScaleSetID: set.ID, MaxRunners: jobs})
	c.report("create listener", nil, err)
	_ = l.Run(c.ctx, &scaler{check: c, set: set})
}

// scaler starts one runner per assigned job. The listener calls it from one goroutine.
type scaler struct {
	*check  `json:"-"`
	set     *scaleset.RunnerScaleSet
	release string
	done    func()

	Runners, Started, Succeeded int
	// Refused is true if a busy runner could not be removed.
	Refused bool
}

func (x *scaler) HandleJobStarted(ctx context.Context, job *scaleset.JobStarted) error {
	x.Started++
	if !strings.HasPrefix(job.RunnerName, x.set.Name) || job.RequestLabels[0] != x.set.Name {
		return fmt.Errorf("a foreign job: %+v", job)
	}
	if x.Started < jobs {
		return nil
	}
	// All jobs run, and each waits for the file.
	err := x.client.RemoveRunner(ctx, int64(job.RunnerID))
	if x.Refused = errors.Is(err, scaleset.JobStillRunningError); !x.Refused {
		return fmt.Errorf("a busy runner was removed: %w", err)
	}
	got, err := x.client.GetRunnerScaleSetByID(ctx, x.set.ID)
	if err != nil {
		return err
	}
	if s := got.Statistics; s.TotalRunningJobs != jobs || s.TotalBusyRunners != jobs || s.TotalRegisteredRunners != jobs {
		return fmt.Errorf("not the numbers of %d running jobs: %+v", jobs, s)
	}
	return os.WriteFile(x.release, nil, 0o600)
}

func (x *scaler) HandleJobCompleted(_ context.Context, job *scaleset.JobCompleted) error {
	if job.Result == "succeeded" && job.RunnerID > 0 {
		x.Succeeded++
	}
	return nil
}

// HandleDesiredRunnerCount is called after every poll.
func (x *scaler) HandleDesiredRunnerCount(_ context.Context, n int) (int, error) {
	for x.Runners < n {
		config, err := x.mint(x.set, fmt.Sprintf("%s-%d", x.set.Name, x.Runners))
		if err != nil {
			return 0, err
		}
		x.Runners++
		printLine(map[string]any{"start_runner": config.EncodedJITConfig})
	}
	if x.Succeeded == jobs {
		x.done()
	}
	return n, nil
}
