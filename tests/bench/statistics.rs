//! Medians and percentiles of noisy measurements.

/// The median.
pub(crate) fn median(values: &[f64]) -> f64 {
    permille(values, 500)
}

/// The percentile; NaN if there are no values.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    permille(values, percent * 10)
}

/// The permille; NaN if there are no values.
pub(crate) fn permille(values: &[f64], permille: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() * permille / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
