package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/actions/scaleset"
)

// call makes a request of GitHub's REST API about the repository of the jobs.
func (c *check) call(method, path string, body any, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(c.ctx, method, *host+"/api/v3/repos/"+*repo+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("TOKEN"))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, got)
	}
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(got, answer)
}

// offer queues jobs for a scale set: a run of a workflow, whose id it returns. The jobs run until the file exists.
func (c *check) offer(set *scaleset.RunnerScaleSet, file string) int {
	workflow := fmt.Sprintf(`on: workflow_dispatch
jobs:
  job:
    runs-on: %s
    strategy:
      matrix:
        number: [1, 2, 3]
    steps:
      - run: until [ -e '%s' ]; do sleep 0.02; done
`, set.Labels[0].Name, file)
	name := set.Name + ".yml"
	content := base64.StdEncoding.EncodeToString([]byte(workflow))
	err := c.call(http.MethodPut, "/contents/.github/workflows/"+name, map[string]any{"message": "x", "content": content}, nil)
	var run struct {
		ID int `json:"workflow_run_id"`
	}
	if err == nil {
		err = c.call(http.MethodPost, "/actions/workflows/"+name+"/dispatches", map[string]any{"ref": "main", "return_run_details": true}, &run)
	}
	c.expect("queue jobs", err, func() bool { return run.ID > 0 }, run.ID)
	return run.ID
}

func (c *check) cancel(run int) {
	c.report("cancel the run", nil, c.call(http.MethodPost, fmt.Sprintf("/actions/runs/%d/cancel", run), struct{}{}, nil))
}
