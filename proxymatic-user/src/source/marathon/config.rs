//! The configuration of the Marathon source.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU32,
    ops::RangeInclusive,
    time::Duration,
};

use super::{
    auth::{Access, AccessFiles},
    claim_rules::ClaimRules,
    endpoint::{Endpoint, parse},
    schedule::Timing,
};
use crate::{model::Snapshot, source::Clock};

/// The refresh intervals that make sense: a shorter one is a load on Marathon, a longer one is no refresh.
const REFRESH: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// The configuration of the Marathon source. Printed, it is the list of endpoints without credentials.
#[derive(Clone, Debug)]
pub struct Config {
    /// The endpoints of Marathon, in the order in which they are tried.
    pub endpoints: Vec<Endpoint>,
    /// The access to Marathon.
    pub access: Access,
    /// The number of hosts that share a `maxconn` label.
    pub group_size: NonZeroU32,
    /// Whether to serve a service port that equals the host port of its tasks.
    pub expose_host: bool,
    /// What apps may claim.
    pub claims: ClaimRules,
    /// The services that an earlier agent published. The first response is compared with them.
    pub adopted: Snapshot,
    /// The services that this host serves. Their owners stay.
    pub served: Snapshot,
    /// All durations of the source.
    pub timing: Timing,
    /// The clock that measures these durations.
    pub clock: Clock,
    /// The seed of the random numbers that make the times of this agent differ from those of others.
    pub seed: u64,
}

impl Config {
    /// Returns a configuration with the usual durations. `urls` are the values of `--marathon`, see [`parse`].
    ///
    /// `refresh` is from a second to a day.
    ///
    /// # Errors
    /// One sentence for each error.
    pub fn new<S: AsRef<str>>(urls: &[S], refresh: Duration, group_size: NonZeroU32) -> Result<Self, Vec<String>> {
        // The state of the hasher is random for each process.
        let seed = RandomState::new().hash_one(0);
        let timing = Timing { refresh, ..Timing::default() };
        let mut parsed = parse(urls);
        if !REFRESH.contains(&refresh) {
            let reason =
                format!("the refresh interval is {refresh:?}; it must be from 1 to {} s", REFRESH.end().as_secs());
            parsed = Err(parsed.err().into_iter().flatten().chain([reason]).collect());
        }
        let (access, adopted, served) = Default::default();
        let (claims, clock) = (ClaimRules::default(), Clock::default());
        let endpoints = parsed?;
        Ok(Self { endpoints, access, group_size, expose_host: false, claims, adopted, served, timing, clock, seed })
    }

    /// Returns the configuration with the access that these files give.
    ///
    /// # Errors
    /// One sentence for each error.
    pub fn with_access(mut self, files: &AccessFiles) -> Result<Self, Vec<String>> {
        self.access = Access::read(files)?;
        Ok(self)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_of_a_configuration_are_reported_at_once() {
        let new = |url: &str, seconds| Config::new(&[url], Duration::from_secs(seconds), NonZeroU32::MIN);
        assert!(new("http://h", 60).is_ok());
        assert_eq!(new("ftp://h", 0).unwrap_err().len(), 2);
        assert!(new("http://h", 86_401).unwrap_err()[0].contains("from 1 to 86400 s"));
    }
}
