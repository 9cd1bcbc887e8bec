//! What `--registrator` and its companions say: which etcd, which folder of it, and how to get in.

use std::{fmt, path::PathBuf, time::Duration};

use reqwest::{Certificate, Url};

use crate::{
    model::Snapshot,
    source::{
        backoff::Limits,
        credentials::{Credentials, credentials, decoded, take, too_open},
        loss_guard::CONFIRM,
        tls,
    },
};

/// The port of etcd where none is given.
const PORT: u16 = 2379;

/// What the source has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The members of the cluster, in the order in which they are asked. All of them over TLS, or none.
    pub endpoints: Vec<Url>,
    /// The folder of services, without a slash at its end; empty for all of etcd.
    pub prefix: String,
    /// How to get in.
    pub(super) access: Access,
    /// The longest time between two reads.
    pub refresh: Duration,
    /// Whether services are served that a container has on its own host on the very service port.
    pub expose_host: bool,
    /// What is served already, as an earlier agent published it: the first answer is measured by it.
    pub adopted: Snapshot,
    /// How long to wait after the first failure.
    pub first_wait: Duration,
    /// How long what is missing from an answer is doubted before a second one is asked for.
    pub confirm: Duration,
}

/// The files that say how to get in.
#[derive(Clone, Debug, Default)]
pub struct AccessFiles {
    /// `--registrator-credentials-file`: `user:password` on its first line.
    pub credentials: Option<PathBuf>,
    /// `--registrator-ca-cert`: certificates in PEM; only what they have signed is believed.
    pub ca_cert: Option<PathBuf>,
}

/// How to get in.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    pub(super) credentials: Option<Credentials>,
    /// `None`: those of this system.
    pub(super) ca: Option<Vec<Certificate>>,
    /// What is not wrong, but not good either.
    pub(super) warnings: Vec<String>,
}

impl Config {
    /// Reads `etcd://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/PREFIX`, where ports are 2379 if not given. With
    /// `https` in place of `etcd` it is asked over TLS.
    ///
    /// # Errors
    /// It is none: one sentence that begins with it, without user and password.
    pub fn new(url: &str, refresh: Duration) -> Result<Self, String> {
        // What stands before the @ is a secret, also where it is not where it should be.
        let shown = match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
            (None, Some((_, rest))) => format!("***@{rest}"),
            (_, None) => url.to_owned(),
        };
        let wrong = |reason: &str| format!("{shown}: {reason}; write it as etcd://host:{PORT}/services");
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| wrong("must start with etcd://, or with https:// for TLS"))?;
        let protocol = match scheme.to_ascii_lowercase().as_str() {
            "etcd" | "http" => "http",
            "https" => "https",
            _ => return Err(wrong(&format!("{scheme}:// is not supported by this version"))),
        };
        let (secret, rest) = rest.rsplit_once('@').map_or((None, rest), |(secret, rest)| (Some(secret), rest));
        if secret.is_some_and(|secret| secret.contains(['/', '?', '#'])) {
            return Err(wrong("user and password must not have / ? or # in them: write %2F, %3F or %23"));
        }
        let credentials = secret.map(|secret| {
            let (user, password) = secret.split_once(':').unwrap_or((secret, ""));
            Credentials { user: decoded(user), password: decoded(password) }
        });
        if rest.contains(['?', '#']) {
            return Err(wrong("must end with the path: no ? and no #"));
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut endpoints = Vec::new();
        for host in hosts.split(',').map(str::trim).filter(|host| !host.is_empty()) {
            let mut endpoint = Url::parse(&format!("{protocol}://{host}"))
                .map_err(|error| wrong(&format!("{host:?} is no host: {error}")))?;
            let named = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            if !named && endpoint.set_port(Some(PORT)).is_err() {
                return Err(wrong(&format!("{host:?} is no host")));
            }
            endpoints.push(endpoint);
        }
        if endpoints.is_empty() {
            return Err(wrong("names no host"));
        }
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let prefix = parts.iter().map(|part| format!("/{part}")).collect();
        let access = Access { credentials, ..Access::default() };
        let first_wait = Limits::default().first;
        let adopted = Snapshot::default();
        Ok(Self { endpoints, prefix, access, refresh, expose_host: false, adopted, first_wait, confirm: CONFIRM })
    }

    /// The same, with what is in these files.
    ///
    /// # Errors
    /// One sentence for each that is no good.
    pub fn with_access(mut self, files: &AccessFiles) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let from_file = take("--registrator-credentials-file", &files.credentials, &mut wrong, credentials);
        // As for Marathon, those of the URL come first.
        self.access.credentials = self.access.credentials.or(from_file);
        self.access.ca = take("--registrator-ca-cert", &files.ca_cert, &mut wrong, tls::certificates);
        if files.ca_cert.is_some() && !self.is_tls() {
            wrong.push(
                "--registrator-ca-cert: --registrator is not asked over TLS; let its URL begin with https://".into(),
            );
        }
        self.access.warnings.extend(files.credentials.iter().filter_map(|path| too_open(path)));
        if wrong.is_empty() { Ok(self) } else { Err(wrong) }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.scheme() == "https")
    }
}

/// Without user and password.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.endpoints.iter().map(|url| url.authority().to_owned()).collect::<Vec<_>>().join(",");
        let scheme = if self.is_tls() { "https" } else { "etcd" };
        write!(f, "{scheme}://{hosts}{}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<Config, String> {
        Config::new(url, Duration::from_secs(60))
    }

    #[test]
    fn urls_of_one_or_several_hosts() {
        for (url, shown) in [
            ("etcd://10.0.0.1:4001/services", "etcd://10.0.0.1:4001/services"),
            ("etcd://h1:4001,h2/a//b/", "etcd://h1:4001,h2:2379/a/b"),
            ("http://h:80/services", "etcd://h:80/services"),
            ("etcd://[2001:db8::1]:4001", "etcd://[2001:db8::1]:4001"),
            ("etcd://[2001:db8::1]/x", "etcd://[2001:db8::1]:2379/x"),
            ("https://me:secret@h1,h2:4001/services", "https://h1:2379,h2:4001/services"),
        ] {
            // The port that http has by itself is not printed by the type of URL.
            assert_eq!(config(url).unwrap().to_string().replace("h/", "h:80/"), shown, "{url}");
        }
    }

    #[test]
    fn what_is_no_url_is_said_and_no_password_shown() {
        for (url, part) in [
            ("h:4001/services", "must start with etcd://"),
            ("consul://h/services", "consul:// is not supported"),
            ("etcd:///services", "names no host"),
            ("etcd://h:port/services", "is no host"),
            ("etcd://h/services?x", "no ?"),
        ] {
            let said = config(url).unwrap_err();
            assert!(said.contains(part) && said.starts_with(url), "{said}");
        }
        for url in
            ["consul://me:secret@h", "me:secret@h", "etcd://me:sec/ret@h/x", "https://me:secret@h?x", "etcd://secret@"]
        {
            let said = config(url).unwrap_err();
            assert!(said.contains("***@") && !said.contains("sec") && !said.contains("me:"), "{said}");
        }
    }

    #[test]
    fn credentials_come_from_the_url_or_else_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        std::fs::write(&path, "file:secret").unwrap();
        let files = AccessFiles { credentials: Some(path), ca_cert: None };
        for (url, user, password) in
            [("etcd://h/s", "file", "secret"), ("etcd://me:a%2Fb%40@h,i/s", "me", "a/b@"), ("etcd://me@h/s", "me", "")]
        {
            let config = config(url).unwrap().with_access(&files).unwrap();
            let Credentials { user: its, password: its_password } = config.access.credentials.clone().unwrap();
            assert_eq!((its.as_str(), its_password.as_str()), (user, password), "{url}");
            assert!(!format!("{config} {config:?}").contains(password) || password.is_empty(), "{config:?}");
        }
    }

    #[test]
    fn certificates_for_what_is_not_asked_over_tls_are_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap().cert.pem()).unwrap();
        let files = AccessFiles { credentials: None, ca_cert: Some(path) };
        assert!(config("https://h/s").unwrap().with_access(&files).is_ok());
        let wrong = config("etcd://h/s").unwrap().with_access(&files).unwrap_err();
        assert!(wrong.len() == 1 && wrong[0].contains("begin with https://"), "{wrong:?}");
    }
}
