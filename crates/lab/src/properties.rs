//! Properties that hold for any workflow file and any expression.

use dayfly_property::{Property, assert_shown};

use crate::expression::{self, Scope, Status, Value, limits};
use crate::workflow::{self, Workflow, matrix, plan};

/// All properties.
pub const ALL: [Property; 2] = [WORKFLOWS, EXPRESSIONS];

/// Each remark about a file has a place in the file. A file without remarks can be planned, and its plan has bounds.
pub const WORKFLOWS: Property = Property { name: "workflows", seeds: workflows, check: check_workflow };

/// A value of an expression has bounds, and is the same each time.
pub const EXPRESSIONS: Property =
    Property { name: "expressions", seeds: expressions, check: check_expression };

fn workflows() -> Vec<Vec<u8>> {
    [
        include_str!("workflow/parse/tests/whole.yml"),
        "on: push\njobs: { a: { runs-on: x, steps: [{ run: ls }] } }",
        "on: push\njobs:\n  a: &a\n    runs-on: ${{ matrix.os }}\n    strategy: { matrix: { os: [x, y], n: [1], \
         include: [{ os: z, n: 2 }], exclude: [{ os: y }] }, max-parallel: 2 }\n    steps: [{ run: \"echo ${{ matrix.n }}\" }]\n\
         \x20 b: { needs: a, if: \"always() && needs.a.outputs.x == 'y'\", runs-on: { group: g, labels: [x] }, \
         timeout-minutes: ${{ fromJSON('3') }}, steps: [{ uses: a/b@v1 }] }",
        "run-name: ${{ github.actor }}\non:\n  workflow_dispatch: { inputs: { a: { type: choice, options: [1, 2] } } }\njobs: {}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn expressions() -> Vec<Vec<u8>> {
    [
        "github.event.list.*.name",
        "a.b['c'][0] == 'x' && !(1 <= 2 || 0x1F != .5e-3) && success()",
        "format('{0} {{}} {1}', github.actor, join(github.event.list.*.name, ', '))",
        "fromJSON('{\"a\": [1, null, true]}').a[github.event.number]",
        "case(contains(fromJSON('[1, 2]'), 2), toJSON(github), 'no', hashFiles('**/x'))",
        "startsWith('ab', 'A') == endsWith('ab', 'B')",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Returns a scope with a context of every kind of value.
fn scope() -> Scope<'static> {
    let github = serde_json::json!({ "actor": "o", "ref": "refs/heads/main",
        "event": { "number": 7, "list": [{ "name": "a" }, { "name": null }, 3, true] } });
    let github = Value::from_json(&github);
    let contexts =
        ["needs", "vars", "inputs", "matrix", "strategy", "env", "steps", "job", "runner", "secrets"];
    let scope = contexts
        .iter()
        .fold(Scope::new(), |scope, name| scope.with(name, Value::from_json(&serde_json::json!({}))));
    scope.with("github", github).with_status(Status { success: true, failure: false, cancelled: false })
}

fn check_workflow(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match workflow::parse("ci.yml", text) {
        Ok(workflow) => check_plan(&workflow),
        Err(diagnostics) => {
            assert!(!diagnostics.remarks().is_empty(), "a refusal has a reason");
            for remark in diagnostics.remarks() {
                assert_shown(remark);
                // A reader may notice the end of the file one line after its last one.
                let line = remark.position.map_or(1, |position| position.line) as usize;
                assert!(line <= text.split(['\n', '\r']).count() + 1, "{remark}");
            }
        }
    }
}

fn check_plan(workflow: &Workflow) {
    let scope = scope();
    workflow.notices.iter().for_each(assert_shown);
    let _ = plan::run_name(workflow, &scope);
    assert!(!workflow.triggers.is_empty() && !workflow.jobs.is_empty());
    assert_eq!(workflow.trigger(&workflow.default_trigger().event), Some(workflow.default_trigger()));
    for job in workflow.jobs.values() {
        match plan::strategy(&workflow.file, job, &scope) {
            Err(error) => assert_shown(error),
            Ok(strategy) => {
                let combinations = strategy.combinations.len();
                assert!((1..=matrix::JOBS_MAX).contains(&combinations), "{combinations} jobs of one matrix");
                assert!(strategy.max_parallel > 0);
                let first = strategy.combinations[0].as_ref();
                match plan::job(&workflow.file, job, first, &scope) {
                    Err(error) => assert_shown(error),
                    Ok(plan) => assert!(plan.timeout_minutes > 0.0, "{}", plan.timeout_minutes),
                }
            }
        }
    }
}

fn check_expression(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = match expression::parse(text) {
        Err(error) => return assert_shown(error),
        Ok(parsed) => parsed,
    };
    assert!(text.chars().count() <= limits::LENGTH_MAX || text.trim().len() < text.len(), "{}", text.len());
    let again = expression::parse(parsed.source()).unwrap_or_else(|error| panic!("{error}: {parsed:?}"));
    assert_eq!(again, parsed);
    let scope = scope();
    match (parsed.evaluate(&scope), again.evaluate(&scope)) {
        (Err(error), Err(_)) => assert_shown(error),
        (Ok(value), Ok(again)) => {
            let value = value.to_text();
            assert_eq!(value, again.to_text());
            assert!(value.len() <= limits::EVALUATION_BYTES_MAX, "{} bytes", value.len());
        }
        (one, other) => panic!("{one:?}, and then {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_should_hold_holds_for_all_seeds_and_for_what_is_almost_one() {
        dayfly_property::hold(&super::ALL);
    }
}
