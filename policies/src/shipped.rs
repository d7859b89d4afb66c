//! The policies that come with the program. The build has read their text (`profiles/*.toml`) and made trees of it.

use crate::tree::{Built, Kind, Node};

include!(concat!(env!("OUT_DIR"), "/profiles.rs"));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;
    use crate::tree::Value;

    #[test]
    fn built_policies_say_what_their_texts_say_at_the_same_places() {
        let texts = [
            include_str!("../profiles/strict.toml"),
            include_str!("../profiles/default.toml"),
            include_str!("../profiles/build.toml"),
            include_str!("../profiles/loopback.toml"),
            include_str!("../profiles/moderate.toml"),
            include_str!("../profiles/minimal.toml"),
        ];
        for ((name, file, built), text) in PROFILES.iter().zip(texts) {
            assert_eq!(built.text, text, "{name}");
            let read = document::parse(&(*file).into(), name, text).unwrap();
            let built = document::built(file, name, built).unwrap();
            assert_eq!(format!("{built:?}"), format!("{read:?}"), "{name}");
            assert!(built.description.is_some(), "{name}");
        }
    }

    /// No shipped policy has every kind of value, so these are read as tables are, and not as policies.
    #[test]
    fn every_kind_of_node_is_read_as_what_it_is() {
        let node = |kind, start, end, next| Node { kind, start, end, line: 2, column: 3, next };
        let nodes = vec![
            node(Kind::Table, 0, 0, 9),
            node(Kind::Key, 0, 1, 5),
            node(Kind::List, 0, 0, 5),
            node(Kind::Text, 1, 3, 4),
            node(Kind::Number, 3, 5, 5),
            node(Kind::Key, 1, 2, 7),
            node(Kind::True, 0, 0, 7),
            node(Kind::Key, 2, 3, 9),
            node(Kind::False, 0, 0, 9),
        ];
        let built: &'static Built = Box::leak(Box::new(Built { text: "abc12", nodes: nodes.leak() }));
        let entries = built.table("f").entries();
        assert_eq!(entries.iter().map(|entry| entry.key).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(entries[0].at().to_string(), "f:2:3");
        let list = entries[0].value.as_list().unwrap();
        assert_eq!((list.len(), list[0].as_text(), list[1].as_number()), (2, Some("bc"), Some(12)));
        assert_eq!((list[0].as_number(), list[1].as_text(), list[0].as_truth()), (None, None, None));
        assert_eq!((entries[1].value.as_truth(), entries[2].value.as_truth()), (Some(true), Some(false)));
        assert!(entries[0].value.as_table().is_none() && entries[1].value.as_list().is_none());
        let kinds = [entries[0].value, list[0], list[1], entries[1].value, entries[2].value].map(Value::kind);
        assert_eq!(kinds, ["a list", "a string", "an integer", "a boolean", "a boolean"]);
    }
}
