//! Test of the page that lists faults and operations.

use std::collections::BTreeSet;

use super::kind::Fault;
use super::operation::{Call, Operation, Side};

const PAGE: &str = include_str!("../../../../docs/lab.md");

/// Returns the beginnings of the rows of the table with this head.
fn rows(head: &str, columns: usize) -> Vec<String> {
    let table = PAGE.split_once(head).expect("the table").1;
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let begin = |line: &str| line.split('|').skip(1).take(columns).collect::<Vec<_>>().join("|");
    lines.map(begin).collect()
}

/// Returns the operations at which a fault can happen.
fn places(fault: Fault) -> String {
    let fits = |side: Side| Call::ALL.iter().filter(|call| call.side == side).all(|call| fault.fits(*call));
    match (fits(Side::Rest), fits(Side::Service)) {
        (true, true) => "each call".to_owned(),
        (true, false) => "each call of the REST API".to_owned(),
        _ => {
            let fitting = Call::ALL.iter().filter(|call| fault.fits(**call));
            let names: BTreeSet<_> = fitting.map(|call| format!("`{}`", call.operation.name())).collect();
            names.into_iter().collect::<Vec<_>>().join(", ")
        }
    }
}

#[test]
fn the_page_lists_every_fault_with_its_operations_and_its_number() {
    let row = |fault: Fault| {
        let number = fault.value().map(|value| format!("{}, {}", value.meaning, value.default));
        format!(" `{}` | {} | {} ", fault.name(), places(fault), number.as_deref().unwrap_or("-"))
    };
    let expected: Vec<String> = Fault::ALL.into_iter().map(row).collect();
    assert_eq!(rows("| fault | happens on | number | what happens |", 3), expected);
}

#[test]
fn the_page_lists_every_operation() {
    let expected: Vec<String> =
        Operation::ALL.into_iter().map(|operation| format!(" `{}` ", operation.name())).collect();
    assert_eq!(rows("| operation | calls |", 1), expected);
}
