//! The configuration of the registrator source: the etcd, the folder, and the access.

use std::{fmt, path::PathBuf, time::Duration};

use reqwest::{Certificate, Url};

use crate::{
    model::Snapshot,
    source::{
        backoff::Limits,
        credentials::{Credentials, parse_credentials, percent_decode, permissions_warning, read_file},
        loss_guard::CONFIRM,
        tls,
    },
};

/// The port of etcd if none is given.
const PORT: u16 = 2379;

/// The configuration of the registrator source.
#[derive(Clone, Debug)]
pub struct Config {
    /// The members of the cluster, in the order in which they are tried. All of them use TLS, or none.
    pub endpoints: Vec<Url>,
    /// The folder of services, without a slash at its end; empty for all keys of etcd.
    pub prefix: String,
    /// The access to etcd.
    pub(super) access: Access,
    /// The longest time between two reads.
    pub refresh: Duration,
    /// Whether to serve a service port that a container also publishes on its own host.
    pub expose_host: bool,
    /// The services that an earlier agent published. The first response is compared with them.
    pub adopted: Snapshot,
    /// The wait after the first failure.
    pub first_wait: Duration,
    /// How long the loss guard waits for a second response.
    pub confirm: Duration,
}

/// The files for the access to etcd.
#[derive(Clone, Debug, Default)]
pub struct AccessFiles {
    /// `--registrator-credentials-file`: `user:password` on its first line.
    pub credentials: Option<PathBuf>,
    /// `--registrator-ca-cert`: certificates in PEM; only servers that they signed are trusted.
    pub ca_cert: Option<PathBuf>,
}

/// The access to etcd.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    pub(super) credentials: Option<Credentials>,
    /// The trusted authorities; `None` for those of the system.
    pub(super) ca: Option<Vec<Certificate>>,
    /// Warnings about the files, one sentence each.
    pub(super) warnings: Vec<String>,
}

impl Config {
    /// Parses `etcd://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/PREFIX`. The port is 2379 if none is given. `https` in
    /// place of `etcd` means TLS.
    ///
    /// # Errors
    /// The URL is invalid; one sentence that begins with the URL, without user and password.
    pub fn new(url: &str, refresh: Duration) -> Result<Self, String> {
        // The text before the @ is a secret, also if it is in the wrong place.
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
            Credentials { user: percent_decode(user), password: percent_decode(password) }
        });
        if rest.contains(['?', '#']) {
            return Err(wrong("must end with the path: no ? and no #"));
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut endpoints = Vec::new();
        for host in hosts.split(',').map(str::trim).filter(|host| !host.is_empty()) {
            let mut endpoint = Url::parse(&format!("{protocol}://{host}"))
                .map_err(|error| wrong(&format!("{host:?} is not a host: {error}")))?;
            let named = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            if !named && endpoint.set_port(Some(PORT)).is_err() {
                return Err(wrong(&format!("{host:?} is not a host")));
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

    /// Returns the configuration with the access that these files give.
    ///
    /// # Errors
    /// One sentence for each error.
    pub fn with_access(mut self, files: &AccessFiles) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let from_file = read_file("--registrator-credentials-file", &files.credentials, &mut wrong, parse_credentials);
        // The credentials of the URL come first, as for Marathon.
        self.access.credentials = self.access.credentials.or(from_file);
        self.access.ca = read_file("--registrator-ca-cert", &files.ca_cert, &mut wrong, tls::certificates);
        if files.ca_cert.is_some() && !self.is_tls() {
            wrong.push("--registrator-ca-cert: --registrator does not use TLS; begin its URL with https://".into());
        }
        self.access.warnings.extend(files.credentials.iter().filter_map(|path| permissions_warning(path)));
        if wrong.is_empty() { Ok(self) } else { Err(wrong) }
    }

    /// Returns whether the members use TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.scheme() == "https")
    }
}

/// The URL without user and password.
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
    fn urls_of_one_or_several_hosts_are_parsed() {
        for (url, shown) in [
            ("etcd://10.0.0.1:4001/services", "etcd://10.0.0.1:4001/services"),
            ("etcd://h1:4001,h2/a//b/", "etcd://h1:4001,h2:2379/a/b"),
            ("http://h:80/services", "etcd://h:80/services"),
            ("etcd://[2001:db8::1]:4001", "etcd://[2001:db8::1]:4001"),
            ("etcd://[2001:db8::1]/x", "etcd://[2001:db8::1]:2379/x"),
            ("https://me:secret@h1,h2:4001/services", "https://h1:2379,h2:4001/services"),
        ] {
            // `Url` does not print the default port of http.
            assert_eq!(config(url).unwrap().to_string().replace("h/", "h:80/"), shown, "{url}");
        }
    }

    #[test]
    fn invalid_url_is_refused_without_showing_a_password() {
        for (url, part) in [
            ("h:4001/services", "must start with etcd://"),
            ("consul://h/services", "consul:// is not supported"),
            ("etcd:///services", "names no host"),
            ("etcd://h:port/services", "is not a host"),
            ("etcd://h/services?x", "no ?"),
        ] {
            let error = config(url).unwrap_err();
            assert!(error.contains(part) && error.starts_with(url), "{error}");
        }
        for url in
            ["consul://me:secret@h", "me:secret@h", "etcd://me:sec/ret@h/x", "https://me:secret@h?x", "etcd://secret@"]
        {
            let error = config(url).unwrap_err();
            assert!(error.contains("***@") && !error.contains("sec") && !error.contains("me:"), "{error}");
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
    fn ca_cert_without_tls_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap().cert.pem()).unwrap();
        let files = AccessFiles { credentials: None, ca_cert: Some(path) };
        assert!(config("https://h/s").unwrap().with_access(&files).is_ok());
        let wrong = config("etcd://h/s").unwrap().with_access(&files).unwrap_err();
        assert!(wrong.len() == 1 && wrong[0].contains("begin its URL with https://"), "{wrong:?}");
    }
}
