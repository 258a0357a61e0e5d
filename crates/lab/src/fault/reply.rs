//! Changes of a reply's JSON. Pure.

use serde_json::{Map, Value, json};

use super::kind::Fault;

/// The member of a message whose text is JSON again.
const NESTED: &str = "body";

/// Returns the body of a reply after a fault. A body that is not JSON stays as it is.
pub(super) fn changed(fault: Fault, value: u64, body: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let bare = body.strip_prefix(MARK).unwrap_or(body);
    if fault == Fault::ByteOrderMark {
        return [MARK, bare].concat();
    }
    let Ok(mut json) = serde_json::from_slice::<Value>(bare) else { return body.to_vec() };
    match fault {
        Fault::UnknownMembers => each_object(&mut json, &add_member),
        Fault::TextIds => each_object(&mut json, &ids_as_text),
        Fault::MovingPages => drop_entries(&mut json, usize::try_from(value).unwrap_or(usize::MAX)),
        _ => return body.to_vec(),
    }
    let mark = &body[..body.len() - bare.len()];
    [mark, json.to_string().as_bytes()].concat()
}

/// Changes each object, also those in the text of a message.
fn each_object(value: &mut Value, change: &impl Fn(&mut Map<String, Value>)) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| each_object(value, change)),
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                let nested = member.as_str().filter(|_| name == NESTED);
                match nested.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
                    Some(mut inner) => {
                        each_object(&mut inner, change);
                        *member = inner.to_string().into();
                    }
                    None => each_object(member, change),
                }
            }
            change(members);
        }
        _ => {}
    }
}

fn add_member(members: &mut Map<String, Value>) {
    members.insert(
        "newMemberOfTheLab".to_owned(),
        json!({"kind": "none of those that you know", "values": [1, null]}),
    );
}

fn ids_as_text(members: &mut Map<String, Value>) {
    let is_id = |name: &str| name == "id" || name.ends_with("_id") || name.ends_with("Id");
    for (_, member) in members.iter_mut().filter(|(name, _)| is_id(name)) {
        if let Value::Number(number) = member {
            *member = number.to_string().into();
        }
    }
}

/// Drops the first entries of a list, which is the answer itself or its first array.
fn drop_entries(value: &mut Value, count: usize) {
    let list = match value {
        Value::Array(list) => Some(list),
        Value::Object(members) => members.values_mut().find_map(Value::as_array_mut),
        _ => None,
    };
    if let Some(list) = list {
        list.drain(..count.min(list.len()));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_seen_in_the_body_and_in_the_message_within() {
        let message = br#"{"messageId":7,"body":"[{\"runnerRequestId\":8,\"jobId\":\"a\"}]"}"#;
        let change = |fault| String::from_utf8(changed(fault, 1, message)).unwrap();
        assert_eq!(
            change(Fault::TextIds),
            r#"{"messageId":"7","body":"[{\"runnerRequestId\":\"8\",\"jobId\":\"a\"}]"}"#
        );
        assert_eq!(change(Fault::UnknownMembers).matches("newMemberOfTheLab").count(), 2);
        assert!(change(Fault::ByteOrderMark).starts_with('\u{feff}'));
        let page = changed(Fault::MovingPages, 2, br#"{"total_count":3,"runners":[1,2,3]}"#);
        assert_eq!(page, br#"{"total_count":3,"runners":[3]}"#);
    }

    #[test]
    fn a_mark_stays_one_mark_and_text_stays_text() {
        let marked = "\u{feff}{\"id\":1}".as_bytes();
        assert_eq!(changed(Fault::ByteOrderMark, 0, marked), marked);
        assert_eq!(changed(Fault::TextIds, 0, marked), "\u{feff}{\"id\":\"1\"}".as_bytes());
        assert_eq!(changed(Fault::TextIds, 0, b"a log"), b"a log");
    }
}
