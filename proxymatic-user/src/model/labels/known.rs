//! All labels: their keys, and their table in docs/labels.md.

use super::port_labels::PORT_LABELS;
use crate::model::{settings::SETTINGS, suggest};

/// Returns the keys of all labels.
fn known_labels() -> impl Iterator<Item = &'static str> {
    let of_services = SETTINGS.iter().filter_map(|setting| Some(setting.label?.key));
    PORT_LABELS.iter().map(|label| label.key).chain(of_services)
}

pub(super) fn is_known(key: &str) -> bool {
    known_labels().any(|known| known == key)
}

/// Returns the key that is most like an unknown one.
pub(super) fn nearest(key: &str) -> &'static str {
    suggest(key, &known_labels().collect::<Vec<_>>())
}

/// Returns the rows of the table of labels in docs/labels.md. Adjacent labels with the same text share a row.
pub fn label_table() -> String {
    let of_ports = PORT_LABELS.iter().filter_map(|label| Some((label.key, label.document?.map(str::to_owned))));
    let of_services = SETTINGS.iter().filter_map(|setting| {
        let label = setting.label?;
        Some((label.key, [(label.values)(), label.default.into(), label.meaning.into()]))
    });
    let mut rows: Vec<(String, [String; 3])> = Vec::new();
    for (key, text) in of_ports.chain(of_services) {
        match rows.last_mut() {
            Some((keys, before)) if *before == text => keys.push_str(&format!(", `{key}`")),
            _ => rows.push((format!("`{key}`"), text)),
        }
    }
    rows.into_iter().map(|(keys, text)| format!("| {keys} | {} |\n", text.join(" | "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Policy;

    /// Returns a document with `rows` in the place of the lines from `begin` to `end`, which both stay.
    fn with(document: &str, begin: &str, rows: &str, end: &str) -> String {
        let (head, rest) = document.split_once(begin).expect(begin);
        let at = rest.find(end).expect(end);
        format!("{head}{begin}{rows}{}", &rest[at..])
    }

    #[test]
    fn labels_document_has_a_row_for_each_label() {
        let document = include_str!("../../../../docs/labels.md");
        let header = "| key | value | default | meaning |\n| --- | --- | --- | --- |\n";
        let expected = with(document, header, &label_table(), "\nDurations are");
        expect_test::expect_file!["../../../../docs/labels.md"].assert_eq(&expected);
        for policy in Policy::ALL {
            assert!(document.contains(&format!("\n| `{policy}` | ")), "{policy} has no row in docs/labels.md");
        }
    }

    #[test]
    fn fuzz_dictionary_has_a_word_for_each_label() {
        let dictionary = include_str!("../../../../fuzz/dictionaries/labels.dict");
        let words: String = known_labels().map(|key| format!("\"{key}\"\n")).collect();
        let expected = with(dictionary, "for libFuzzer to put in.\n", &words, "\"VIP_\"");
        expect_test::expect_file!["../../../../fuzz/dictionaries/labels.dict"].assert_eq(&expected);
    }
}
