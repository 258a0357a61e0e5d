// Runs Octokit, GitHub's own client of the REST API, against a lab, and checks each answer against GitHub's description of
// its API (OpenAPI). Prints one JSON line per call.
//
//   node scenario.mjs URL SCOPE     the token is in the environment variable TOKEN
//
// SCOPE is repos/OWNER/REPO, orgs/ORG or enterprises/NAME.
import { readFileSync } from 'node:fs';
import assert from 'node:assert/strict';
import { Octokit } from '@octokit/rest';
import Ajv from 'ajv';
import formats from 'ajv-formats';

const [url, scope] = process.argv.slice(2);
const api = JSON.parse(readFileSync(new URL('openapi.json', import.meta.url), 'utf8'));
allowNull(api);
const ajv = new Ajv({ strict: false, allErrors: true, validateSchema: false, logger: false });
formats(ajv);
ajv.addSchema(api, 'api');
const validators = new Map();

// In OpenAPI 3.0 a nullable enumeration need not list null; in JSON schema it must.
function allowNull(node) {
  if (node === null || typeof node !== 'object') return;
  if (node.nullable === true && Array.isArray(node.enum) && !node.enum.includes(null)) node.enum.push(null);
  Object.values(node).forEach(allowNull);
}

// Returns the reason why an answer is not as GitHub describes it, or undefined.
function difference(method, path, status, data) {
  const operation = api.paths[path]?.[method.toLowerCase()];
  if (!operation) return `GitHub has no ${method} ${path}`;
  const answer = operation.responses[status];
  if (!answer) return `GitHub does not answer ${status}`;
  const pointer = (...parts) => parts.map((part) => '/' + part.replaceAll('~', '~0').replaceAll('/', '~1')).join('');
  const key = answer.$ref ? answer.$ref.slice(1) : pointer('paths', path, method.toLowerCase(), 'responses', String(status));
  const whole = answer.$ref ? api.components.responses[answer.$ref.split('/').pop()] : answer;
  if (!whole.content?.['application/json']?.schema) return data ? 'GitHub answers without a body' : undefined;
  const $ref = 'api#' + encodeURI(key + pointer('content', 'application/json', 'schema')).replaceAll('{', '%7B').replaceAll('}', '%7D');
  if (!validators.has($ref)) validators.set($ref, ajv.compile({ $ref }));
  const validate = validators.get($ref);
  return validate(data) ? undefined : ajv.errorsText(validate.errors.slice(0, 5));
}

function print(step, error) {
  console.log(JSON.stringify({ step, ok: !error, ...(error && { error }) }));
  if (error) process.exitCode = 1;
}

const octokit = new Octokit({ auth: process.env.TOKEN, baseUrl: `${url}/api/v3`, log: { debug() {}, info() {}, warn() {}, error() {} } });

// Calls an operation by its path in GitHub's description. Returns the answer, whatever its status is.
async function call(route, parameters, wanted) {
  const [method, path] = route.split(' ');
  let answer;
  try {
    answer = await octokit.request(route, parameters);
  } catch (error) {
    if (!error.response) throw error;
    answer = error.response;
  }
  const is_wanted = answer.status === wanted ? undefined : `its status is ${answer.status}, not ${wanted}: ${JSON.stringify(answer.data)}`;
  print(`${route} ${wanted}`, is_wanted ?? difference(method, path, answer.status, answer.data || undefined));
  return answer.data;
}

const [kind, ...names] = scope.split('/');
const place = { repos: '/repos/{owner}/{repo}', orgs: '/orgs/{org}', enterprises: '/enterprises/{enterprise}' }[kind];
const owner = { repos: { owner: names[0], repo: names[1] }, orgs: { org: names[0] }, enterprises: { enterprise: names[0] } }[kind];

async function runners() {
  await call(`POST ${place}/actions/runners/registration-token`, owner, 201);
  await call(`POST ${place}/actions/runners/remove-token`, owner, 201);
  const made = [];
  for (const name of ['one', 'two', 'three']) {
    const runner = { ...owner, name, runner_group_id: 1, labels: ['self-hosted', name], work_folder: '_work' };
    made.push((await call(`POST ${place}/actions/runners/generate-jitconfig`, runner, 201)).runner);
  }
  await call(`POST ${place}/actions/runners/generate-jitconfig`, { ...owner, name: 'one', runner_group_id: 1, labels: ['x'] }, 409);
  await call(`POST ${place}/actions/runners/generate-jitconfig`, { ...owner, name: 'four', runner_group_id: 1, labels: [] }, 422);
  const listed = await call(`GET ${place}/actions/runners`, owner, 200);
  assert.equal(listed.total_count, 3);
  const pages = await octokit.paginate(`GET ${place}/actions/runners`, { ...owner, per_page: 2 });
  assert.deepEqual(pages.map((runner) => runner.name).sort(), ['one', 'three', 'two'], 'all pages are read');
  const named = await call(`GET ${place}/actions/runners`, { ...owner, name: 'two' }, 200);
  assert.deepEqual(named.runners.map((runner) => runner.id), [made[1].id]);
  await call(`GET ${place}/actions/runners/{runner_id}`, { ...owner, runner_id: made[0].id }, 200);
  for (const { id } of made) await call(`DELETE ${place}/actions/runners/{runner_id}`, { ...owner, runner_id: id }, 204);
  if (kind !== 'repos') await call(`GET ${place}/actions/runner-groups`, owner, 200);
}

const WORKFLOW = `on:
  workflow_dispatch:
    inputs: { who: { default: you } }
jobs:
  first:
    runs-on: [self-hosted, never]
    steps: [{ run: echo }]
`;

async function runs() {
  const content = Buffer.from(WORKFLOW).toString('base64');
  const file = { ...owner, path: '.github/workflows/w.yml', message: 'a workflow', content };
  // GitHub describes the answer for a client that made a commit; the lab has no commits.
  await octokit.rest.repos.createOrUpdateFileContents(file);
  await call(`POST ${place}/actions/workflows/{workflow_id}/dispatches`, { ...owner, workflow_id: 'w.yml', ref: 'main', inputs: { who: 'me' } }, 204);
  const listed = await call(`GET ${place}/actions/runs`, { ...owner, status: 'queued' }, 200);
  assert.equal(listed.total_count, 1);
  const run = { ...owner, run_id: listed.workflow_runs[0].id };
  await call(`GET ${place}/actions/runs/{run_id}`, run, 200);
  const jobs = await call(`GET ${place}/actions/runs/{run_id}/jobs`, { ...run, filter: 'latest' }, 200);
  assert.deepEqual(jobs.jobs.map((job) => [job.name, job.status, job.labels]), [['first', 'queued', ['self-hosted', 'never']]]);
  await call(`GET ${place}/actions/jobs/{job_id}`, { ...owner, job_id: jobs.jobs[0].id }, 200);
  await call(`POST ${place}/actions/runs/{run_id}/cancel`, run, 202);
  const ended = await call(`GET ${place}/actions/runs/{run_id}`, run, 200);
  assert.deepEqual([ended.status, ended.conclusion], ['completed', 'cancelled']);
}

await runners();
if (kind === 'repos') await runs();
