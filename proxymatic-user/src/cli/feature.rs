//! `proxymatic feature`: the features of this kernel, and the fallbacks for missing ones.

use anyhow::Context as _;

use super::Outcome;
use crate::{
    features::{FeatureRow, features},
    surface::{self, Format},
};

/// The verbs of `feature`.
#[derive(Clone, Copy, Debug, Default, clap::Subcommand)]
pub(super) enum Verb {
    /// Try each feature of the kernel, and leave nothing behind. Needs root. Exit code 1 if a required feature is
    /// missing, 2 if a check failed.
    #[default]
    #[command(alias = "show", alias = "list")]
    Probe,
}

pub(super) fn run(verb: Verb, format: Format) -> anyhow::Result<Outcome> {
    let Verb::Probe = verb;
    let rows = features()?;
    surface::print(&rows, format).context("cannot print")?;
    Ok(outcome(&rows))
}

fn outcome(rows: &[FeatureRow]) -> Outcome {
    if rows.iter().any(|row| row.needed && row.has == Some(false)) {
        Outcome::Problems
    } else if rows.iter().any(|row| row.has.is_none()) {
        Outcome::CannotTell
    } else {
        Outcome::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_required_feature_is_a_problem() {
        let row = |needed, has| FeatureRow { feature: "x", has, needed, found: None, instead: None, reason: None };
        assert_eq!(outcome(&[row(true, Some(true)), row(false, Some(false))]), Outcome::Ok);
        assert_eq!(outcome(&[row(true, Some(false)), row(false, None)]), Outcome::Problems);
        assert_eq!(outcome(&[row(true, Some(true)), row(true, None)]), Outcome::CannotTell);
    }
}
