//! Suggests a known word in place of an unknown one.

/// Returns the known key with the smallest edit distance to `key`, ignoring case.
pub(crate) fn suggest<'a>(key: &str, known: &[&'a str]) -> &'a str {
    let key = key.to_ascii_lowercase();
    known.iter().min_by_key(|known| edits(&key, &known.to_ascii_lowercase())).copied().unwrap_or_default()
}

/// Returns the Levenshtein distance: how many letters to insert, delete or change to turn `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
