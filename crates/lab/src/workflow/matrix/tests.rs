use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn combinations(matrix: Json) -> Vec<Json> {
    let combinations = expand(&Value::from_json(&matrix)).unwrap_or_else(|error| panic!("{matrix}: {error}"));
    combinations.into_iter().map(|combination| Value::Object(combination.values).to_json()).collect()
}

fn refused(matrix: Json) -> String {
    expand(&Value::from_json(&matrix)).unwrap_err().to_string()
}

#[test]
fn the_last_vector_changes_fastest() {
    assert_eq!(
        combinations(json!({ "os": ["a", "b"], "n": [1, 2] })),
        [
            json!({"os": "a", "n": 1}),
            json!({"os": "a", "n": 2}),
            json!({"os": "b", "n": 1}),
            json!({"os": "b", "n": 2})
        ]
    );
}

/// The example of GitHub's documentation, "Expanding or adding matrix configurations".
#[test]
fn included_entries_expand_or_add_as_documented() {
    let matrix = json!({
        "fruit": ["apple", "pear"],
        "animal": ["cat", "dog"],
        "include": [
            { "color": "green" },
            { "color": "pink", "animal": "cat" },
            { "fruit": "apple", "shape": "circle" },
            { "fruit": "banana" },
            { "fruit": "banana", "animal": "cat" },
        ],
    });
    assert_eq!(
        combinations(matrix),
        [
            json!({"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"}),
            json!({"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"}),
            json!({"fruit": "pear", "animal": "cat", "color": "pink"}),
            json!({"fruit": "pear", "animal": "dog", "color": "green"}),
            json!({"fruit": "banana"}),
            json!({"fruit": "banana", "animal": "cat"}),
        ]
    );
}

#[test]
fn excluded_entries_match_in_part_and_before_anything_is_included() {
    assert_eq!(
        combinations(
            json!({ "os": ["a", "b"], "n": [1, 2], "exclude": [{ "os": "a" }, { "os": "b", "n": 1 }] })
        ),
        [json!({"os": "b", "n": 2})]
    );
    assert_eq!(
        combinations(
            json!({ "os": ["a", "b"], "exclude": [{ "os": "b" }], "include": [{ "os": "b", "x": 1 }] })
        ),
        [json!({"os": "a"}), json!({"os": "b", "x": 1})]
    );
    assert_eq!(
        combinations(
            json!({ "o": [{ "name": "a", "v": 1 }, { "name": "b", "v": 1 }], "exclude": [{ "o": { "name": "a" } }] })
        ),
        [json!({"o": {"name": "b", "v": 1}})]
    );
}

#[test]
fn an_included_entry_leaves_the_values_of_vectors_as_they_are() {
    let matrix = json!({
        "os": ["linux"],
        "cfg": [{ "name": "a", "v": 1 }],
        "tags": [["x", "y"]],
        "include": [
            { "os": "LINUX", "extra": 1 },
            { "cfg": { "name": "A" }, "part": "object" },
            { "tags": ["x"], "part2": "list" },
            { "OS": "linux", "extra": 2 },
        ],
    });
    assert_eq!(
        combinations(matrix),
        [json!({
            "os": "linux", "cfg": {"name": "a", "v": 1}, "tags": ["x", "y"],
            "extra": 2, "part": "object", "part2": "list",
        })]
    );
}

#[test]
fn filters_compare_each_single_value_as_expressions_do() {
    let matrix = json!({
        "node": [18, "20", 3.1],
        "flag": [true],
        "cfg": [{ "os": "Linux", "gpu": false }, { "os": "mac", "gpu": true }],
        "exclude": [
            { "node": "18" },
            { "flag": "true" },
            { "cfg": { "os": "MAC" } },
            { "node": 3.1, "cfg": { "os": "linux" } },
        ],
    });
    assert_eq!(
        combinations(matrix),
        [json!({"node": "20", "flag": true, "cfg": {"os": "Linux", "gpu": false}})]
    );
    // A place that the combination lacks is null, and null == false == '' == 0.
    let left = |exclude: Json| {
        combinations(json!({ "a": [1, { "x": 1 }, ["p", "q"]], "b": [0], "exclude": [exclude, { "a": 1 }] }))
    };
    let (object, list) = (json!({"a": {"x": 1}, "b": 0}), json!({"a": ["p", "q"], "b": 0}));
    assert_eq!(
        refused(json!({ "a": [1, { "x": 1 }, ["p"]], "exclude": [{ "a": { "y": false } }] })),
        "the matrix makes no jobs"
    );
    assert_eq!(left(json!({ "a": { "x": 1 } })), std::slice::from_ref(&list));
    assert_eq!(left(json!({ "a": ["P"] })), std::slice::from_ref(&object));
    assert_eq!(left(json!({ "a": ["p", "q", "r"] })), [object.clone(), list.clone()]);
    assert_eq!(left(json!({ "a": { "1": "q" } })), std::slice::from_ref(&object));
    assert_eq!(left(json!({ "a": "Object" })), [object, list]);
}

#[test]
fn a_name_lists_the_values_before_any_was_included() {
    let matrix = json!({
        "a": ["x"],
        "b": [1.1, true],
        "include": [{ "a": "x", "added": "zzz" }, { "added": "first", "A": "other" }],
    });
    let combinations = expand(&Value::from_json(&matrix)).unwrap();
    let named = |combination: &Combination| {
        let values = combination.values.iter().take(combination.named);
        values.map(|(key, value)| format!("{key}={}", value.to_text())).collect::<Vec<_>>()
    };
    assert_eq!(named(&combinations[0]), ["a=x", "b=1.1"]);
    assert_eq!(named(&combinations[1]), ["a=x", "b=true"]);
    assert_eq!(named(&combinations[2]), ["A=other", "added=first"]);
}

#[test]
fn a_matrix_may_consist_of_included_entries_only() {
    assert_eq!(
        combinations(json!({ "include": [{ "a": 1 }, { "b": 2 }] })),
        [json!({"a": 1}), json!({"b": 2})]
    );
}

#[test]
fn what_makes_no_jobs_or_too_many_is_refused() {
    assert_eq!(refused(json!([])), "the matrix must be a mapping");
    assert_eq!(refused(json!({})), "the matrix makes no jobs");
    assert_eq!(refused(json!({ "a": [] })), "the matrix vector \"a\" holds no values");
    assert_eq!(refused(json!({ "a": "x" })), "the matrix vector \"a\" must be a list of values");
    assert_eq!(refused(json!({ "a": [1], "exclude": [{ "a": 1 }] })), "the matrix makes no jobs");
    assert_eq!(
        refused(json!({ "a": [1], "exclude": [{ "b": 1 }] })),
        "the matrix's \"exclude\" names \"b\", which is not one of its vectors"
    );
    assert_eq!(
        refused(json!({ "a": [1], "include": [5] })),
        "each entry of the matrix's \"include\" must be a mapping"
    );
    for filter in ["include", "exclude"] {
        assert_eq!(
            refused(json!({ "a": [1], filter: [{}] })),
            format!("an entry of the matrix's \"{filter}\" has no keys")
        );
    }
    let sixteen: Vec<u32> = (0..16).collect();
    assert_eq!(combinations(json!({ "a": sixteen, "b": sixteen })).len(), JOBS_MAX);
    assert_eq!(
        refused(json!({ "a": sixteen, "b": sixteen, "include": [{ "a": 99 }] })),
        "the matrix makes more than 256 jobs"
    );
    let thousand: Vec<u32> = (0..1000).collect();
    assert_eq!(
        refused(
            json!({ "a": thousand, "b": thousand, "c": thousand, "d": thousand, "e": thousand, "f": thousand, "g": thousand })
        ),
        "the matrix makes more than 256 jobs"
    );
}

#[test]
fn filters_that_need_too_many_comparisons_are_refused_for_that_reason() {
    let numbers: Vec<u32> = (0..200).collect();
    let exclude: Vec<Json> = (0..26).map(|number| json!({ "a": number })).collect();
    assert_eq!(
        refused(json!({ "a": numbers, "b": numbers, "exclude": exclude })),
        "the matrix is too large for its \"exclude\": its vectors and the 26 values to exclude need more than 1000000 comparisons"
    );
    assert_eq!(
        refused(json!({ "a": numbers, "b": numbers, "exclude": exclude[..25] })),
        "the matrix makes more than 256 jobs"
    );
    let long: Vec<u32> = (0..1001).collect();
    assert_eq!(
        refused(json!({ "a": numbers, "b": numbers[..5], "c": [long], "exclude": [{ "c": long }] })),
        "the matrix is too large for its \"exclude\": its vectors and the 1001 values to exclude need more than 1000000 comparisons"
    );
}

#[test]
fn a_filter_in_another_case_is_a_vector() {
    assert_eq!(
        combinations(json!({ "Include": [{ "a": 1 }, { "a": 2 }] })),
        [json!({"Include": {"a": 1}}), json!({"Include": {"a": 2}})]
    );
}

proptest! {
    #[test]
    fn without_filters_every_combination_comes_once(sizes in prop::collection::vec(1_usize..4, 1..5)) {
        let matrix: Object =
            sizes.iter().enumerate().map(|(v, size)| (format!("v{v}"), Value::Array((0..*size).map(|n| Value::Number(n as f64)).collect()))).collect();
        let found = expand(&Value::Object(matrix)).unwrap();
        prop_assert_eq!(found.len(), sizes.iter().product::<usize>());
        let mut texts: Vec<_> = found.iter().map(|object| format!("{object:?}")).collect();
        texts.sort();
        texts.dedup();
        prop_assert_eq!(texts.len(), found.len());
    }
}
