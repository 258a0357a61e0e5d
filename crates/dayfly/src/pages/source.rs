//! The types of a file of Rust, with their descriptions: as much as the facts and their words need, as rustfmt writes it.

/// A struct or an enum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Type {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) members: Vec<Member>,
}

/// A field of a struct, or a variant of an enum.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Member {
    /// The name in written facts.
    pub(super) name: String,
    pub(super) doc: String,
    /// The type of a field.
    pub(super) kind: String,
    /// True for a field whose own fields stand in its place.
    pub(super) is_flat: bool,
    /// The fields of a variant.
    pub(super) fields: Vec<Member>,
}

/// The lines before an item: its description, and its name in written facts.
#[derive(Default)]
struct Before {
    doc: Vec<String>,
    rename: Option<String>,
    is_flat: bool,
    /// True for an enum whose variants are written in snake case.
    is_snake: bool,
}

impl Before {
    /// Takes a line in. Returns false if it belongs to an item itself.
    fn take(&mut self, line: &str) -> bool {
        if let Some(doc) = line.strip_prefix("///") {
            self.doc.push(doc.trim().to_owned());
        } else if line.starts_with("#[") {
            let rename = line.split_once("rename = \"").and_then(|(_, rest)| rest.split('"').next());
            self.rename = rename.map(str::to_owned).or(self.rename.take());
            self.is_flat |= line.contains("flatten");
            self.is_snake |= line.contains("rename_all = \"snake_case\"");
        } else {
            return false;
        }
        true
    }

    fn member(self, name: &str, kind: &str) -> Member {
        let name = self.rename.unwrap_or_else(|| name.to_owned());
        Member {
            name,
            doc: self.doc.join(" "),
            kind: kind.to_owned(),
            is_flat: self.is_flat,
            fields: Vec::new(),
        }
    }
}

/// Returns the public structs and enums of a file.
pub(super) fn types(text: &str) -> Vec<Type> {
    let mut types = Vec::new();
    let (mut before, mut lines) = (Before::default(), text.lines());
    while let Some(line) = lines.next() {
        if before.take(line) {
            continue;
        }
        let head = line.strip_prefix("pub enum ").or_else(|| line.strip_prefix("pub struct "));
        if let Some(name) = head.and_then(|head| head.strip_suffix(" {")) {
            let Before { doc, is_snake, .. } = std::mem::take(&mut before);
            let members = members(&mut lines, "    ", is_snake);
            types.push(Type { name: name.to_owned(), doc: doc.join(" "), members });
        }
        before = Before::default();
    }
    types
}

/// Returns the members up to the end of their block.
fn members<'a>(lines: &mut impl Iterator<Item = &'a str>, indent: &str, is_snake: bool) -> Vec<Member> {
    let (mut found, mut before) = (Vec::new(), Before::default());
    let written = |variant: &str| if is_snake { snake(variant) } else { variant.to_owned() };
    while let Some(line) = lines.next() {
        let Some(line) = line.strip_prefix(indent) else { break };
        if before.take(line) {
            continue;
        }
        let own = std::mem::take(&mut before);
        if let Some(variant) = line.strip_suffix(" {") {
            let fields = members(lines, &format!("{indent}    "), is_snake);
            found.push(Member { fields, ..own.member(&written(variant), "") });
        } else if let Some((name, kind)) =
            line.trim_end_matches(',').trim_start_matches("pub ").split_once(": ")
        {
            found.push(own.member(name, kind));
        } else if let Some(variant) = line.strip_suffix(',') {
            found.push(own.member(&written(variant), ""));
        }
    }
    found
}

/// Returns a variant's name as written facts have it.
pub(super) fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

#[test]
fn descriptions_names_and_fields_are_read() {
    let text = "/// A thing.\n#[derive(Debug)]\n#[serde(tag = \"event\", rename_all = \"snake_case\")]\n\
                pub enum Thing {\n    /// One.\n    /// Two.\n    FirstOne,\n    /// Other.\n    Other {\n        /// Its name.\n        #[serde(rename = \"other_name\")]\n        \
                name: Option<String>,\n    },\n}\n\n/// A record.\npub struct Record {\n    /// When.\n    #[serde(flatten)]\n    \
                pub at: Moment,\n}\n";
    let plain = types("pub enum Plain {\n    FirstOne,\n}\n");
    assert_eq!(plain[0].members[0].name, "FirstOne");
    let types = types(text);
    let field = Member {
        name: "other_name".to_owned(),
        doc: "Its name.".to_owned(),
        kind: "Option<String>".to_owned(),
        ..Member::default()
    };
    let thing = &types[0];
    assert_eq!((thing.name.as_str(), thing.doc.as_str()), ("Thing", "A thing."));
    assert_eq!((thing.members[0].name.as_str(), thing.members[0].doc.as_str()), ("first_one", "One. Two."));
    assert_eq!((thing.members[1].name.as_str(), &thing.members[1].fields[..]), ("other", &[field][..]));
    assert!(types[1].members[0].is_flat && types[1].members[0].kind == "Moment");
}
