//! Tables of cases, and property tests.

use proptest::prelude::*;
use serde_json::json;

use super::{Problem, Scope, Status, Template, Value, parse};

fn scope() -> Scope<'static> {
    let github = json!({
        "ref": "refs/heads/main",
        "event": { "x": 1.5, "labels": [{ "name": "bug" }, { "name": "help wanted" }, { "colour": "red" }], "none": null },
    });
    let matrix = json!({ "os": "Linux", "nested": [[1, 2], [3]], "flag": true });
    Scope::new()
        .with("github", Value::from_json(&github))
        .with("matrix", Value::from_json(&matrix))
        .with_status(Status { success: true, failure: false, cancelled: false })
}

fn evaluate(text: &str) -> Result<Value, Problem> {
    parse(text).and_then(|expr| expr.evaluate(&scope())).map_err(|error| error.problem)
}

#[track_caller]
fn check(text: &str, expected: serde_json::Value) {
    let value = evaluate(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
    assert_eq!(value, Value::from_json(&expected), "{text}");
}

#[test]
fn literals_are_themselves() {
    check("null", json!(null));
    check("true", json!(true));
    check("42", json!(42));
    check("-1.5e2", json!(-150));
    check(".5", json!(0.5));
    check("0xff", json!(255));
    check("0xffffffff", json!(-1));
    check("0o17", json!(15));
    check("'it''s'", json!("it's"));
    check("''", json!(""));
}

#[test]
fn different_kinds_compare_as_numbers() {
    check("null == 0", json!(true));
    check("null == ''", json!(true));
    check("false == 0", json!(true));
    check("true == '1'", json!(true));
    check("'' == 0", json!(true));
    check("' 12 ' == 12", json!(true));
    check("'0x10' == 16", json!(true));
    check("'abc' == 0", json!(false));
    check("'inf' == Infinity", json!(false));
    check("'Infinity' == Infinity", json!(true));
    check("NaN == NaN", json!(false));
    check("NaN != NaN", json!(true));
    check("'abc' < 1", json!(false));
    check("'abc' >= 1", json!(false));
    check("null >= 0", json!(true));
    check("true > false", json!(true));
    check("'2' > 1", json!(true));
}

#[test]
fn text_compares_whatever_its_case() {
    check("'ABC' == 'abc'", json!(true));
    check("'a' < 'B'", json!(true));
    check("matrix.os == 'linux'", json!(true));
    check("contains('Hello World', 'LO wo')", json!(true));
    check("startsWith(github.ref, 'REFS/heads')", json!(true));
    check("endsWith('file.TXT', '.txt')", json!(true));
}

#[test]
fn operators_bind_as_on_github() {
    check("1 < 2 == true", json!(true));
    check("!true || true", json!(true));
    check("!(true || true)", json!(false));
    check("false && false || true", json!(true));
    check("true || false && false", json!(true));
    check("true && 'yes' || 'no'", json!("yes"));
    check("false && 'yes' || 'no'", json!("no"));
    check("'' || 0 || null", json!(null));
    check("!!'x'", json!(true));
    check("1 != 1 == false", json!(true));
}

#[test]
fn members_are_found_by_name_index_and_star() {
    check("github.event.x", json!(1.5));
    check("github['event']['x']", json!(1.5));
    check("GITHUB.Event.X", json!(1.5));
    check("github.event.missing.deeper[3].still", json!(null));
    check("github.event.labels[0].name", json!("bug"));
    check("github.event.labels['1'].name", json!("help wanted"));
    check("github.event.labels[1.9].name", json!("help wanted"));
    check("github.event.labels[-1]", json!(null));
    check("github.event.labels[9]", json!(null));
    check("github.event.labels.*.name", json!(["bug", "help wanted"]));
    check("github.event.labels[*].name", json!(["bug", "help wanted"]));
    check("join(github.event.labels.*.name, ';')", json!("bug;help wanted"));
    check("contains(github.event.labels.*.name, 'BUG')", json!(true));
    check("matrix.nested.*.*", json!([1, 2, 3]));
    check("matrix.nested.*[0]", json!([1, 3]));
    check("github.ref.*", json!([]));
    check("'text'[0]", json!(null));
    check("fromJSON('[1,2]')[1]", json!(2));
}

#[test]
fn functions_do_what_the_documentation_says() {
    check("format('Hello {0} {1} {0}', 'a', 'b')", json!("Hello a b a"));
    check("format('{{Hello {0}}}', 'x')", json!("{Hello x}"));
    check("format('{0}{1}{2}', null, true, 1.0)", json!("true1"));
    check("join(fromJSON('[1,\"a\",null,true]'))", json!("1,a,,true"));
    check("join('single', '-')", json!("single"));
    check("contains('a1b', 1)", json!(true));
    check("contains(fromJSON('[1,2]'), '2')", json!(true));
    check("contains(fromJSON('{\"a\":1}'), 'a')", json!(false));
    check(
        "toJSON(fromJSON('{\"b\": [1, {}], \"a\": []}'))",
        json!("{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": []\n}"),
    );
    check("toJSON('a\"b')", json!("\"a\\\"b\""));
    check("FROMJSON('true')", json!(true));
    check("fromJSON('1e2')", json!(100));
    check("success() && !failure() && !cancelled() && always()", json!(true));
}

#[test]
fn case_returns_the_value_behind_its_first_true_condition() {
    check("case(true, 'first', 'default')", json!("first"));
    check("case(1 == 2, 'equal', 'not equal')", json!("not equal"));
    check("case(false, 'a', true, 'b', true, 'c', 'd')", json!("b"));
    check("CASE(false, 1, false, 2, fromJSON('[3]')[0])", json!(3));
    check("case(github.ref == 'x', github.event, true, matrix.nested, null)[1]", json!([3]));
    check("case(true, '', 'default') == ''", json!(true));
    check("case(true, false, true) || 'x'", json!("x"));
    check("case(matrix.flag, matrix, null).os", json!("Linux"));
    check("case(true, 1, fromJSON('{'))", json!(1));
    check("case(false, fromJSON('{'), true, 2, fromJSON('{') == 1, 3, 4)", json!(2));
}

#[test]
fn case_needs_pairs_a_default_and_boolean_conditions() {
    let message = |text: &str| parse(text).and_then(|expr| expr.evaluate(&scope())).unwrap_err().to_string();
    insta::assert_snapshot!(message("case(true, 1)"), @r#"the function "case" takes an odd number of arguments from 3 to 255 (conditions with their values, then a default), not 2, at position 1 of "case(true, 1)""#);
    insta::assert_snapshot!(message("case(true, 1, false, 2)"), @r#"the function "case" takes an odd number of arguments from 3 to 255 (conditions with their values, then a default), not 4, at position 1 of "case(true, 1, false, 2)""#);
    insta::assert_snapshot!(message(&format!("case({}1)", "false, 1, ".repeat(128))), @r#"the function "case" takes an odd number of arguments from 3 to 255 (conditions with their values, then a default), not 257, at position 1 of "case(false, 1, false, 1, false, 1, false, 1, false, 1, false, 1, false, 1, false, 1, false, 1, false, 1, false, 1, false...""#);
    check(&format!("case({}1)", "false, 2, ".repeat(127)), json!(1));
    insta::assert_snapshot!(message("case(false, 1, 'true', 2, 3)"), @r#"case: the condition 2 is text, but must be true or false, at position 1 of "case(false, 1, 'true', 2, 3)""#);
    insta::assert_snapshot!(message("case(github.event.labels.*.name, 1, 2)"), @r#"case: the condition 1 is a list, but must be true or false, at position 1 of "case(github.event.labels.*.name, 1, 2)""#);
}

#[test]
fn numbers_are_written_with_at_most_fifteen_digits() {
    for (number, text) in [
        ("1", "1"),
        ("-0", "0"),
        ("1.10", "1.1"),
        ("0.1", "0.1"),
        ("1000000", "1000000"),
        ("123456789012345", "123456789012345"),
        ("1234567890123456", "1.23456789012346E+15"),
        ("1e15", "1E+15"),
        ("0.00001", "1E-05"),
        ("0.0001", "0.0001"),
        ("1.5e300", "1.5E+300"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
    ] {
        check(&format!("format('{{0}}', {number})"), json!(text));
    }
}

#[test]
fn mistakes_are_named_with_their_place() {
    let message = |text: &str| parse(text).and_then(|expr| expr.evaluate(&scope())).unwrap_err().to_string();
    insta::assert_snapshot!(message("github.ref = 'x'"), @r#"unexpected symbol "=" (compare with ==), at position 12 of "github.ref = 'x'""#);
    insta::assert_snapshot!(message("github.ref == \"x\""), @r#"unexpected symbol """ (strings use single quotes), at position 15 of "github.ref == "x"""#);
    insta::assert_snapshot!(message("'open"), @r#"the string has no closing ' (write '' for a quote inside a string), at position 1 of "'open""#);
    insta::assert_snapshot!(message("(1"), @r#"unexpected end of expression, expected ), at position 2 of "(1""#);
    insta::assert_snapshot!(message("1 +2"), @r#"unexpected symbol "2", at position 3 of "1 +2""#);
    insta::assert_snapshot!(message("lower('A')"), @r#"unknown function "lower" (known: contains, startsWith, endsWith, format, join, toJSON, fromJSON, case, hashFiles, success, failure, cancelled, always), at position 1 of "lower('A')""#);
    insta::assert_snapshot!(message("contains('a')"), @r#"the function "contains" takes 2 arguments, not 1, at position 1 of "contains('a')""#);
    insta::assert_snapshot!(message("true && secrets.X"), @r#"unknown or unavailable context "secrets" (available here: github, matrix), at position 9 of "true && secrets.X""#);
    insta::assert_snapshot!(message("fromJSON('{')"), @r#"fromJSON: not JSON: EOF while parsing an object at line 1 column 1, at position 1 of "fromJSON('{')""#);
    insta::assert_snapshot!(message("format('{1}', 'a')"), @r#"format: '{1}' refers to argument 1, which was not given, at position 1 of "format('{1}', 'a')""#);
    insta::assert_snapshot!(message("hashFiles('x')"), @r#"hashFiles needs a job's workspace, so it can be used in steps only, at position 1 of "hashFiles('x')""#);
    insta::assert_snapshot!(message(" "), @r#"the expression is empty, at position 1 of """#);
}

#[test]
fn depth_length_and_results_are_bounded() {
    assert!(matches!(parse(&"(".repeat(20_000)).unwrap_err().problem, Problem::TooDeep { .. }));
    assert!(matches!(parse(&"!".repeat(20_000)).unwrap_err().problem, Problem::TooDeep { .. }));
    assert!(matches!(
        parse(&format!("a{}", ".b".repeat(9000))).unwrap_err().problem,
        Problem::TooDeep { .. }
    ));
    assert!(matches!(
        parse(&format!("1{}", "==1".repeat(6000))).unwrap_err().problem,
        Problem::TooDeep { .. }
    ));
    assert!(matches!(parse(&"1".repeat(30_000)).unwrap_err().problem, Problem::TooLong { .. }));
    // Each level repeats the level before ten times, so the evaluation must stop at the limit.
    let mut bomb = "'0123456789'".to_owned();
    for _ in 0..12 {
        bomb = format!("format('{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}', {bomb})");
    }
    assert!(matches!(evaluate(&bomb), Err(Problem::TooLarge { .. })));
    let many = format!("[{}1]", "1,".repeat(4000));
    let bomb = format!("join(fromJSON('{many}'), '{}')", "x".repeat(5000));
    assert!(matches!(evaluate(&bomb), Err(Problem::TooLarge { .. })), "{:?}", evaluate(&bomb).map(|_| ()));
}

#[test]
fn status_functions_complete_a_condition_that_has_none() {
    let completed = |text: &str| parse(text).unwrap().with_default_status().source().to_owned();
    assert_eq!(completed("github.ref == 'x' || true"), "success() && (github.ref == 'x' || true)");
    assert_eq!(completed("Always()"), "Always()");
    assert_eq!(completed("!cancelled() && true"), "!cancelled() && true");
    let expr = parse("true || false").unwrap().with_default_status();
    assert_eq!(parse(expr.source()).unwrap().evaluate(&scope()).unwrap(), expr.evaluate(&scope()).unwrap());
}

#[test]
fn templates_are_cut_at_their_expressions_and_become_format_calls() {
    let source = |text: &str| Template::parse(text).unwrap().to_expression().unwrap().source().to_owned();
    assert_eq!(source("${{ github.ref }}"), "github.ref");
    assert_eq!(
        source("a ${{ github.ref }} it's {b} ${{ 1 }}"),
        "format('a {0} it''s {{b}} {1}', github.ref, 1)"
    );
    assert_eq!(source("${{ '}}' }}${{ 'a''}}' }}"), "format('{0}{1}', '}}', 'a''}}')");
    assert_eq!(Template::parse("no expression }}").unwrap().as_text(), Some("no expression }}"));
    assert_eq!(Template::parse("a ${{ b").unwrap_err().problem, Problem::Unclosed);
    let error = Template::parse(&"ä".repeat(600_000)).unwrap_err();
    assert_eq!(
        (error.problem.to_string().as_str(), error.position),
        ("the text has more than 1048576 bytes", 524_288)
    );
    assert_eq!(Template::parse("${{ }}").unwrap_err().problem, Problem::Empty);
}

/// Generates text that is close to an expression.
fn expression_like() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("github"),
        Just("matrix"),
        Just(".event"),
        Just(".*"),
        Just("["),
        Just("]"),
        Just("("),
        Just(")"),
        Just(","),
        Just("'a'"),
        Just("'{0}'"),
        Just("'[1,2]'"),
        Just("0"),
        Just("1e400"),
        Just("-"),
        Just("=="),
        Just("&&"),
        Just("||"),
        Just("!"),
        Just("<"),
        Just(">="),
        Just("format("),
        Just("fromJSON("),
        Just("toJSON("),
        Just("join("),
        Just("contains("),
        Just("case("),
        Just("always()"),
        Just("null"),
        Just("NaN"),
        Just(" "),
        Just("é"),
        Just("'"),
        Just("${{"),
        Just("}}"),
    ];
    prop::collection::vec(word, 0..30).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn nothing_makes_the_parser_or_the_evaluator_panic(text in prop_oneof![expression_like(), any::<String>()]) {
        if let Ok(expr) = parse(&text) {
            let _ = expr.evaluate(&scope());
            let _ = expr.with_default_status().evaluate(&scope());
        }
        if let Ok(template) = Template::parse(&text) {
            let _ = template.to_expression();
        }
    }

    #[test]
    fn what_was_read_reads_the_same_again(text in expression_like()) {
        if let Ok(expr) = parse(&text) {
            // NaN is not equal to itself, so the text is compared.
            prop_assert_eq!(format!("{:?}", parse(expr.source()).unwrap()), format!("{expr:?}"));
        }
    }

    #[test]
    fn text_in_a_template_survives_as_it_is(before in "[^$]*", after in "[^$]*") {
        let template = Template::parse(&format!("{before}${{{{ matrix.os }}}}{after}")).unwrap();
        let value = template.to_expression().unwrap().evaluate(&scope()).unwrap();
        prop_assert_eq!(value, Value::String(format!("{before}Linux{after}")));
    }

    #[test]
    fn json_comes_back_as_it_went(number in -1e14_f64..1e14, text in any::<String>(), flag in any::<bool>()) {
        let number = (number * 8.0).round() / 8.0;
        let value = Value::from_json(&json!({ "n": number, "t": text, "b": flag, "l": [null, text.clone()] }));
        let scope = Scope::new().with("v", value.clone());
        let again = parse("fromJSON(toJSON(v))").unwrap().evaluate(&scope).unwrap();
        let round = |value: &Value| value.to_json().to_string();
        if number.abs() < 1e11 {
            prop_assert_eq!(round(&again), round(&value));
        }
    }

    #[test]
    fn equality_is_symmetric(a in scalar(), b in scalar()) {
        prop_assert_eq!(a.loosely_equals(&b), b.loosely_equals(&a));
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<f64>().prop_map(Value::Number),
        prop_oneof!["[0-9]{1,3}", "true", "[aA]", ""].prop_map(Value::String),
    ]
}
