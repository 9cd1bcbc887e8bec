//! By what a source is known again: where it is, whatever it takes to get in.

use std::collections::{BTreeMap, BTreeSet};

use super::{Config, SourceId};

impl Config {
    /// Where each source is: URLs without credentials, or a path. A source that has one of them in common with an earlier
    /// one is the same.
    pub fn identities(&self) -> BTreeMap<SourceId, BTreeSet<String>> {
        let marathon = self.marathon.iter().map(|config| {
            (SourceId::Marathon, config.endpoints.iter().map(ToString::to_string).collect::<BTreeSet<_>>())
        });
        let registrator = self.registrator.iter().map(|config| {
            let at = |url: &reqwest::Url| format!("{}{}", url.as_str().trim_end_matches('/'), config.prefix);
            (SourceId::Registrator, config.endpoints.iter().map(at).collect())
        });
        let file = self.file.iter().map(|config| (SourceId::File, [config.to_string()].into()));
        marathon.chain(registrator).chain(file).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, path::Path, time::Duration};

    use super::*;
    use crate::source::{file, marathon, registrator};

    #[test]
    fn a_source_is_known_by_where_it_is_and_no_secret_is_told() {
        let minute = Duration::from_secs(60);
        let config = Config {
            marathon: marathon::Config::new(
                &["http://me:secret@m1:8080,https://m2/marathon/"],
                minute,
                NonZeroU32::MIN,
            )
            .ok(),
            registrator: registrator::Config::new("etcd://me:secret@e1,e2:4001/services", minute).ok(),
            file: file::Config::new(Path::new("/etc/services.toml")).ok(),
        };
        let shown: Vec<_> = config.identities().into_iter().map(|(id, of)| format!("{id} {of:?}")).collect();
        assert_eq!(
            shown,
            [
                r#"registrator {"http://e1:2379/services", "http://e2:4001/services"}"#,
                r#"marathon {"http://m1:8080", "https://m2/marathon"}"#,
                r#"file {"/etc/services.toml"}"#,
            ]
        );
    }
}
