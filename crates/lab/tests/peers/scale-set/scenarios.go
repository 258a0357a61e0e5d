package main

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/actions/scaleset"
	"github.com/actions/scaleset/listener"
	"github.com/hashicorp/go-retryablehttp"
)

func (c *check) scaleSet() {
	group, err := c.client.GetRunnerGroupByName(c.ctx, scaleset.DefaultRunnerGroup)
	c.expect("the default group has id 1", err, func() bool { return group.ID == 1 && group.IsDefault }, group)
	_, err = c.client.GetRunnerGroupByName(c.ctx, "nope")
	c.refused("an unknown group", err, "no runner group found")
	got, err := c.client.GetRunnerScaleSet(c.ctx, 1, "no such set")
	c.expect("an absent set is not found", err, func() bool { return got == nil }, got)
	set, remove := c.newSet()
	defer remove()
	got, err = c.client.GetRunnerScaleSet(c.ctx, 1, set.Name)
	c.expect("find by name", err, func() bool { return got != nil && got.ID == set.ID && got.RunnerGroupName == "Default" }, got)
	_, err = c.client.CreateRunnerScaleSet(c.ctx, &scaleset.RunnerScaleSet{Name: set.Name, RunnerGroupID: 1})
	c.refused("the same name again", err, "409", "RunnerScaleSetExistsException")
	set.Labels = append(set.Labels, scaleset.Label{Name: "second"})
	set.RunnerSetting.DisableUpdate = true
	got, err = c.client.UpdateRunnerScaleSet(c.ctx, set.ID, set)
	c.expect("update labels", err, func() bool { return len(got.Labels) == 2 }, nil)
	got, err = c.client.GetRunnerScaleSetByID(c.ctx, set.ID)
	c.expect("get by id, all kept", err, func() bool {
		return len(got.Labels) == 2 && got.RunnerSetting.DisableUpdate && got.Statistics != nil
	}, got)
	_, err = c.client.GetRunnerScaleSetByID(c.ctx, set.ID+1_000_000)
	c.refused("get an unknown id", err, "404", "RunnerScaleSetNotFoundException")
}

func (c *check) session() {
	set, remove := c.newSet()
	defer remove()
	_, end := c.newSession(set)
	_, err := c.client.MessageSessionClient(c.ctx, set.ID, "owner-2")
	c.refused("second session", err, "409", "RunnerScaleSetSessionConflictException", "already has an active session")
	end()
	_, end = c.newSession(set)
	end()
}

// refresh spoils the token of one poll: the server must answer 401, renew the session, then serve the poll.
func (c *check) refresh() {
	var spoil atomic.Bool
	var calls []string
	h := retryablehttp.NewClient()
	h.RetryMax = 0
	h.Logger = nil
	h.RequestLogHook = func(_ retryablehttp.Logger, r *http.Request, _ int) {
		if calls = append(calls, r.Method); spoil.CompareAndSwap(true, false) {
			r.Header.Set("Authorization", "Bearer expired")
		}
	}
	set, remove := c.newSet()
	defer remove()
	s, end := c.newSession(set, scaleset.WithRetryableHTTPClint(h))
	defer end()
	before := s.Session().SessionID
	calls = nil
	spoil.Store(true)
	_, err := s.GetMessage(c.ctx, 0, 0)
	c.expect("an expired queue token is renewed", err, func() bool {
		return strings.Join(calls, " ") == "GET PATCH GET" && s.Session().SessionID == before
	}, calls)
}

func (c *check) queue() {
	set, remove := c.newSet()
	defer remove()
	s, end := c.newSession(set)
	defer end()
	run := c.offer(set, "/never")
	first, err := c.next(s, 0)
	c.expect("the first message offers the jobs", err, func() bool {
		return len(first.JobAvailableMessages) == jobs && first.Statistics.TotalAvailableJobs == jobs
	}, first)
	again, err := c.next(s, 0)
	c.expect("not acknowledged, it comes again", err, func() bool { return again.MessageID == first.MessageID }, nil)
	c.report("acknowledge", nil, s.DeleteMessage(c.ctx, first.MessageID))
	var ids []int64
	for _, j := range first.JobAvailableMessages {
		ids = append(ids, j.RunnerRequestID)
	}
	got, err := s.AcquireJobs(c.ctx, ids)
	c.expect("acquire", err, func() bool { return len(got) == len(ids) }, got)
	got, err = s.AcquireJobs(c.ctx, ids)
	c.expect("acquired jobs are not given twice", err, func() bool { return len(got) == 0 }, got)
	m, err := c.next(s, first.MessageID)
	c.expect("the next message counts them as assigned", err, func() bool {
		return m.Statistics.TotalAssignedJobs == jobs && m.Statistics.TotalAvailableJobs == 0 && len(m.JobAssignedMessages) == jobs
	}, m)
	c.report("acknowledge", nil, s.DeleteMessage(c.ctx, m.MessageID))
	last := m.MessageID
	m, err = s.GetMessage(c.ctx, last, jobs)
	c.expect("an empty poll", err, func() bool { return m == nil }, m)
	c.cancel(run)
	m, err = c.next(s, last)
	c.expect("acquired jobs that are cancelled leave the statistics", err, func() bool {
		done := m.JobCompletedMessages
		return len(done) == jobs && done[0].Result == "canceled" && done[0].RunnerID == 0 && m.Statistics.TotalAssignedJobs == 0
	}, m)
}

func (c *check) capacity() {
	set, remove := c.newSet()
	defer remove()
	s, end := c.newSession(set)
	defer end()
	run := c.offer(set, "/never")
	m, err := s.GetMessage(c.ctx, 0, 0)
	c.expect("a listener without capacity is offered nothing", err, func() bool { return m == nil }, m)
	m, err = s.GetMessage(c.ctx, 0, 2)
	c.expect("a listener is offered what it has room for", err, func() bool {
		return len(m.JobAvailableMessages) == 2 && m.Statistics.TotalAvailableJobs == jobs
	}, m)
	c.cancel(run)
}

// cancelled has jobs cancelled before any scale set acquired them.
func (c *check) cancelled() {
	set, remove := c.newSet()
	defer remove()
	s, end := c.newSession(set)
	defer end()
	run := c.offer(set, "/never")
	m, err := c.next(s, 0)
	c.expect("the jobs are offered", err, func() bool { return len(m.JobAvailableMessages) == jobs }, nil)
	c.cancel(run)
	got, err := s.AcquireJobs(c.ctx, []int64{m.JobAvailableMessages[0].RunnerRequestID})
	c.expect("a cancelled job is not given", err, func() bool { return len(got) == 0 }, got)
	after, err := c.client.GetRunnerScaleSetByID(c.ctx, set.ID)
	c.expect("the statistics are empty", err, func() bool { return *after.Statistics == scaleset.RunnerScaleSetStatistic{} }, after)
}

func (c *check) jit() {
	set, remove := c.newSet()
	defer remove()
	name := set.Name + "-r"
	made, err := c.mint(set, name)
	// A JIT config holds a private key and is not printed.
	c.expect("mint", err, func() bool { return made.Runner.ID > 0 && jitFiles(made.EncodedJITConfig) }, nil)
	_, err = c.mint(set, name)
	c.refused("the same runner name again", err, scaleset.RunnerExistsError.Error())
	got, err := c.client.GetRunnerByName(c.ctx, name)
	c.expect("find runner by name", err, func() bool { return got != nil && got.ID == made.Runner.ID && got.RunnerScaleSetID == set.ID }, got)
	got, err = c.client.GetRunner(c.ctx, made.Runner.ID)
	c.expect("find runner by id", err, func() bool { return got.Name == name }, got)
	after, err := c.client.GetRunnerScaleSetByID(c.ctx, set.ID)
	c.expect("it is registered and not idle yet", err, func() bool {
		return after.Statistics.TotalRegisteredRunners == 1 && after.Statistics.TotalIdleRunners == 0
	}, after.Statistics)
	c.report("remove runner", nil, c.client.RemoveRunner(c.ctx, int64(made.Runner.ID)))
	c.refused("remove it again", c.client.RemoveRunner(c.ctx, int64(made.Runner.ID)), scaleset.RunnerNotFoundError.Error())
	got, err = c.client.GetRunnerByName(c.ctx, name)
	c.expect("it is gone", err, func() bool { return got == nil }, got)
}

// jitFiles checks the form that runners read: base64 of a JSON object whose values are JSON files in base64.
func jitFiles(encoded string) bool {
	var files map[string][]byte // encoding/json reads base64 strings into bytes
	raw, err := base64.StdEncoding.DecodeString(encoded)
	return err == nil && json.Unmarshal(raw, &files) == nil && json.Valid(files[".runner"]) &&
		json.Valid(files[".credentials"]) && json.Valid(files[".credentials_rsaparams"])
}

// gone has a scale set deleted behind its listener's back.
func (c *check) gone() {
	set, _ := c.newSet()
	s, _ := c.newSession(set)
	c.report("delete the scale set", nil, c.client.DeleteRunnerScaleSet(c.ctx, set.ID))
	l, err := listener.New(s, listener.Config{ScaleSetID: set.ID, MaxRunners: jobs})
	c.report("create listener", nil, err)
	c.refused("the listener ends", l.Run(c.ctx, &scaler{check: c, set: set}), "404", "RunnerScaleSetNotFoundException")
	_, err = c.client.MessageSessionClient(c.ctx, set.ID, "owner-1")
	c.refused("it gets no new session", err, "404", "RunnerScaleSetNotFoundException")
	_, err = c.mint(set, set.Name+"-r")
	c.refused("it gets no runner", err, "404", "RunnerScaleSetNotFoundException")
	c.refused("it cannot be deleted again", c.client.DeleteRunnerScaleSet(c.ctx, set.ID), "404")
	again, err := c.client.CreateRunnerScaleSet(c.ctx, &scaleset.RunnerScaleSet{Name: set.Name, RunnerGroupID: 1})
	c.expect("its name is free", err, func() bool { return again.ID != set.ID }, again)
	c.report("delete it too", nil, c.client.DeleteRunnerScaleSet(c.ctx, again.ID))
}
