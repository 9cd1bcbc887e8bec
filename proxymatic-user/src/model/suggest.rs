//! Suggests a known word in place of an unknown one.

/// Returns the known key with the smallest edit distance to `key`, ignoring case.
pub(crate) fn suggest<'a>(key: &str, known: &[&'a str]) -> &'a str {
    let key = key.to_ascii_lowercase();
    let edits = |known: &&&str| strsim::levenshtein(&key, &known.to_ascii_lowercase());
    known.iter().min_by_key(edits).copied().unwrap_or_default()
}
