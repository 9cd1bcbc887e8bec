//! Which known word was meant by one that is not known.

/// The known key that takes the fewest edits to reach, upper and lower case being the same.
pub(crate) fn suggest<'a>(key: &str, known: &[&'a str]) -> &'a str {
    let key = key.to_ascii_lowercase();
    known.iter().min_by_key(|known| edits(&key, &known.to_ascii_lowercase())).copied().unwrap_or_default()
}

/// How many letters must be put in, taken out or changed to make `a` into `b` (Levenshtein's distance).
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
