use proptest::prelude::*;

use super::*;

fn mask(secrets: &[&str]) -> Mask {
    let secrets = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
    Mask::new(Arc::new(SecretSet::new(secrets)), Vec::new())
}

/// Passes lines through a mask as they come from a runner.
fn lines(mask: &mut Mask, lines: &[&str]) -> Vec<String> {
    let mut masked = Vec::new();
    for line in lines {
        let (line, secret) = mask.line(line);
        secret.into_iter().for_each(|secret| mask.add(secret).unwrap());
        masked.push(line);
    }
    masked
}

#[test]
fn secrets_are_replaced_and_those_that_overlap_or_touch_together() {
    let of = mask(&["hunter", "hunter2", "", "two halves", "halves meet"]);
    assert_eq!(of.apply("my hunter2 and hunter"), "my *** and ***");
    assert_eq!(of.apply("two halves meet hunterhunter2"), "*** ***");
    assert_eq!(of.apply("nothing here"), "nothing here");
    assert_eq!(of.apply(""), "");
    let of = Mask::new(Arc::new(SecretSet::new(vec!["ab".into()])), vec!["bc".into()]);
    assert_eq!(of.apply("xabcx"), "x***x", "sets overlap, too");
}

#[test]
fn a_secret_of_several_lines_is_masked_line_by_line() {
    let of = mask(&["-----BEGIN\nabcdef\r  ghijkl\r\n}\n"]);
    assert_eq!(of.apply("abcdef } ghijkl"), "*** } ***");
    assert_eq!(of.apply("abcdef\nghijkl"), "***\n***");
}

#[test]
fn every_form_that_githubs_runner_masks_is_masked() {
    // As printed by base64, jq, Python's urllib and xml.sax, and by the runner's own encoders.
    for (secret, text, masked) in [
        ("correct horse", "Y29ycmVjdCBob3JzZQ==", "***"),
        ("correct horse", "eCBjb3JyZWN0IGhvcnNlIHk=", "eC***IHk="),
        ("correct horse", "eHggY29ycmVjdCBob3JzZSB5", "eHgg***S5"),
        ("p\"q\\r\ttail", r#"{"k":"p\"q\\r\ttail"}"#, r#"{"k":"***"}"#),
        ("a b/c?d=é", "https://h/?q=a%20b%2Fc%3Fd%3D%C3%A9&r", "https://h/?q=***&r"),
        ("<a & 'b'>", "<v>&lt;a &amp; &apos;b&apos;&gt;</v>", "<v>***</v>"),
        ("say \"hi\"", "docker run -e \"X=say \\\"hi\\\"\"", "docker run -e \"X=***\""),
        ("it's", "format('it''s')", "format('***')"),
        ("\"quoted value\"", "quoted value", "***"),
        ("secretpart1&secretpart2&secretpart3", "secretpart1&secretpart2& secretpart3", "*** ***"),
        ("secretpart1&+secretpart2", "secretpart1&+ s ecretpart2", "*** s ***"),
        ("line one\nline two", "bGluZSBvbmUKbGluZSB0d28=", "***"),
        ("line one\nline two", r#""line one\nline two""#, "\"***\""),
        ("line one\nline two", "line%20one%0Aline%20two", "***"),
    ] {
        let found = mask(&[secret]).apply(text);
        // The last character of base64 in a longer text depends on what follows.
        if text.starts_with("eC") || text.starts_with("eHgg") {
            assert!(
                found.contains("***") && !found.contains("cmVjdCBob3JzZ") && !found.contains("9ycmVjdCB"),
                "{found}"
            );
        } else {
            assert_eq!(found, masked, "{secret:?}");
        }
    }
}

#[test]
fn an_add_mask_command_masks_its_value_from_the_next_line_on() {
    let mut of = mask(&[]);
    assert_eq!(
        lines(
            &mut of,
            &[
                "before: arn:aws:iam::123:role/x",
                "::add-mask::arn:aws:iam::123:role/x",
                "after: arn:aws:iam::123:role/x",
                "  \u{2753}  ::add-mask::another::value",
                "another::value",
                "::add-mask x=y::spoken",
                "spoken",
                "##[add-mask]old;style",
                "old;style",
                "::add-mask::first%0Asecond%25%0D%0Athird",
                "first, second%, third",
            ]
        ),
        [
            "before: arn:aws:iam::123:role/x",
            "::add-mask::***",
            "after: ***",
            "  \u{2753}  ::add-mask::***",
            "***",
            "::add-mask x=y::***",
            "***",
            "##[add-mask]***",
            "***",
            "::add-mask::***",
            "***, ***, ***",
        ]
    );
}

#[test]
fn other_lines_add_nothing() {
    let mut of = mask(&[]);
    for line in [
        "echo ::add-mask::value",
        "::add-mask::",
        "::add-mask:: \t",
        "::add-masks::value",
        "::add-mask:value",
        "::warning::add-mask::value",
        "add-mask::value",
        "##[group]::add-mask::value",
    ] {
        assert_eq!(lines(&mut of, &[line]), [line]);
    }
    assert_eq!(of.added, 0);
}

#[test]
fn a_mask_that_is_known_already_is_not_added_again() {
    let mut of = mask(&["hunter2"]);
    let repeated = ["::add-mask::hunter2", "::add-mask::a1b2%0Ac3d4", "::add-mask::a1b2", "::add-mask::c3d4"];
    lines(&mut of, &repeated);
    assert_eq!((of.added, of.added_bytes), (2, 9));
}

#[test]
fn masks_of_a_job_are_bounded_in_number_and_in_length() {
    let mut of = mask(&[]);
    for number in 0..ADDED_MAX {
        of.add(format!("secret {number};").into()).unwrap();
    }
    assert_eq!(of.add("one more".into()), Err(TooManyMasks));
    assert!(of.of_job.len() < 20, "{} sets", of.of_job.len());
    assert_eq!(of.apply("secret 0; secret 517; secret 999;"), "*** *** ***");
    let mut of = mask(&[]);
    of.add("x".repeat(ADDED_BYTES_MAX).into()).unwrap();
    assert_eq!(of.add("y".into()), Err(TooManyMasks));
    let lines = "line\n".repeat(ADDED_MAX + 1);
    assert_eq!(mask(&[]).add(lines.into()), Err(TooManyMasks));
}

/// Finds the longest pattern that ends at each byte by trying all of them.
fn model(patterns: &[String], text: &str) -> Vec<(usize, usize)> {
    let ending = |end: usize| {
        let found =
            patterns.iter().filter(|it| !it.is_empty() && text.as_bytes()[..end].ends_with(it.as_bytes()));
        found.map(String::len).max().map(|length| (end - length, end))
    };
    (1..=text.len()).filter_map(ending).collect()
}

proptest! {
    #[test]
    fn patterns_are_found_wherever_they_stand(
        patterns in prop::collection::vec("[ab\u{e9}]{0,4}", 0..8),
        text in "[ab\u{e9}c]{0,20}",
    ) {
        let automaton = Automaton::new(&patterns);
        prop_assert_eq!(automaton.find(text.as_bytes()).collect::<Vec<_>>(), model(&patterns, &text));
    }

    #[test]
    fn no_masked_text_holds_a_secret(secret in "[a-z\u{e9}%\"&]{3,8}", around in any::<String>(), text in any::<String>()) {
        let of = mask(&[&secret]);
        let masked = of.apply(&format!("{around}{secret}{text}"));
        prop_assert!(!masked.contains(&secret));
        let (line, _) = of.line(&text);
        prop_assert!(!line.contains(&secret));
    }
}
