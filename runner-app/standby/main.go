// Command act-standby is github-act-runner's `run` for a runner that is not known yet.
//
// Starting that program is the longest part of the way to a job, and all of it can be done before there is a runner: in a
// machine that is then frozen. So this one starts, loads what it needs, and waits for somebody to write to the FIFO that it
// is given: a JSON object, the environment of its jobs. From there on it does what `github-act-runner run` does in the same
// folder with that environment: it reads `.runner`, `.credentials` and `.credentials_rsaparams`, and serves.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/ChristopherHX/github-act-runner/actionsdotnetactcompat"
	"github.com/ChristopherHX/github-act-runner/actionsrunner"
	"github.com/ChristopherHX/github-act-runner/runnerconfiguration"
	"github.com/ChristopherHX/github-act-runner/runnerconfiguration/compat"
	"github.com/actions-oss/act-cli/pkg/container"
)

// What github-act-runner calls itself when it is built without a version of its own.
const version = "0.8.x-dev"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: act-standby FIFO")
		os.Exit(2)
	}
	if err := waitForEnvironment(os.Args[1]); err != nil {
		fmt.Printf("Error: %v\n", err)
		os.Exit(1)
	}
	if err := run(); err != nil {
		fmt.Printf("Error: %v\n", err)
		os.Exit(1)
	}
}

// waitForEnvironment takes over the environment that is written to the FIFO, in place of its own.
func waitForEnvironment(fifo string) error {
	text, err := os.ReadFile(fifo)
	if err != nil {
		return err
	}
	var environment map[string]string
	if err := json.Unmarshal(text, &environment); err != nil {
		return fmt.Errorf("the environment: %w", err)
	}
	os.Clearenv()
	for name, value := range environment {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("the variable %s: %w", name, err)
		}
	}
	return nil
}

func run() error {
	// A pseudo terminal for each step, as with `run`.
	container.SetContainerAllocateTerminal(true)
	listening, job := contexts()
	instance, err := compat.ToRunnerInstance(compat.DefaultConfigFileAccess{})
	if err != nil {
		return fmt.Errorf("the runner's files: %w", err)
	}
	settings := &runnerconfiguration.RunnerSettings{
		PoolID:    1,
		Instances: []*runnerconfiguration.RunnerInstance{instance},
	}
	runner := &actionsrunner.RunRunner{Version: version, Settings: settings}
	return runner.Run(&actionsdotnetactcompat.ActRunner{}, listening, job)
}

// contexts are done when a signal asks for it: SIGTERM cancels the job too, a first interrupt only ends the listening.
func contexts() (listening, job context.Context) {
	listening, stopListening := context.WithCancel(context.Background())
	job, cancelJob := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		if <-signals == os.Interrupt {
			fmt.Println("CTRL+C received, stop accepting new jobs and exit after all active job are finished")
			stopListening()
			<-signals
		}
		fmt.Println("SIGTERM received, cancel any current job and wait for completion")
		cancelJob()
	}()
	return listening, job
}
