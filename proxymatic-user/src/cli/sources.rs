//! The flags that name sources of services, for `run` and `plan show`.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use super::args::bounded;
use crate::source::{self, file, marathon, registrator};

/// The flags of the sources. Names, variables and defaults are those of `meltwater/proxymatic` where it had them.
#[derive(Debug, clap::Args)]
pub(super) struct SourceArgs {
    /// The URL of Marathon, or several URLs, tried in order.
    #[arg(long, short = 'm', value_name = "URL", env = "MARATHON_URL", value_delimiter = ',')]
    pub(super) marathon: Vec<String>,
    /// The etcd of registrator: etcd://HOST:PORT/PREFIX, https:// for TLS, or several hosts separated by commas.
    #[arg(long, short = 'r', value_name = "URL", env = "REGISTRATOR_URL")]
    pub(super) registrator: Option<String>,
    /// A file with user:password on its first line, for registrator's etcd.
    #[arg(long, value_name = "PATH", env = "REGISTRATOR_CREDENTIALS_FILE")]
    pub(super) registrator_credentials_file: Option<PathBuf>,
    /// A PEM file of CA certificates: the only ones trusted for registrator's etcd.
    #[arg(long, value_name = "PATH", env = "REGISTRATOR_CA_CERT")]
    pub(super) registrator_ca_cert: Option<PathBuf>,
    /// A file of services, PATH.toml or PATH.json. They take precedence over other sources; the agent rereads a changed
    /// file.
    #[arg(long, value_name = "PATH", env = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// A file with user:password on its first line, for each Marathon URL without credentials.
    #[arg(long, value_name = "PATH", env = "MARATHON_CREDENTIALS_FILE")]
    pub(super) marathon_credentials_file: Option<PathBuf>,
    /// The JSON file of a DC/OS service account, which the agent uses to log in.
    #[arg(long, value_name = "PATH", env = "DCOS_SERVICE_ACCOUNT")]
    pub(super) dcos_service_account: Option<PathBuf>,
    /// A PEM file of CA certificates: the only ones trusted for Marathon, in place of the system's.
    #[arg(long, value_name = "PATH", env = "MARATHON_CA_CERT")]
    pub(super) marathon_ca_cert: Option<PathBuf>,
    /// Seconds between full reads of a source; events are read all the time.
    #[arg(long, short = 'i', value_name = "SECONDS", env = "REFRESH_INTERVAL", default_value_t = 60)]
    pub(super) refresh_interval: u32,
    /// The number of agents that share the clients of a service; maxconn labels are divided by it.
    #[arg(long, value_name = "N", env = "GROUP_SIZE", default_value_t = 1)]
    pub(super) group_size: u32,
    /// Serve also services whose service port is the port of their tasks on their own hosts.
    #[arg(long, short = 'e', env = "EXPOSE_HOST", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) expose_host: bool,
}

impl SourceArgs {
    /// Removes the files that a check would open.
    pub(super) fn remove_files(&mut self) {
        let Self { registrator_credentials_file, registrator_ca_cert, marathon_credentials_file, .. } = self;
        let Self { dcos_service_account, marathon_ca_cert, .. } = self;
        let marathon = [marathon_credentials_file, dcos_service_account, marathon_ca_cert];
        for file in marathon.into_iter().chain([registrator_credentials_file, registrator_ca_cert]) {
            *file = None;
        }
    }
}

/// Checks the arguments and adds a sentence to `wrong` for each mistake; `None` if there is one.
pub(super) fn check(args: &SourceArgs, wrong: &mut Vec<String>) -> Option<source::Config> {
    let before = wrong.len();
    let refresh = bounded("--refresh-interval", args.refresh_interval, 1, 86_400, "seconds", wrong);
    let refresh = Duration::from_secs(refresh.into());
    let group = NonZeroU32::new(args.group_size).unwrap_or_else(|| {
        wrong.push("--group-size 0: must be at least 1, for this agent".into());
        NonZeroU32::MIN
    });
    let urls: Vec<&str> = args.marathon.iter().map(String::as_str).filter(|url| !url.trim().is_empty()).collect();
    let etcd = args.registrator.as_deref().map(str::trim).filter(|url| !url.is_empty());
    let path = args.file.as_deref().filter(|path| !path.as_os_str().is_empty());
    if urls.is_empty() && etcd.is_none() && path.is_none() {
        wrong.push(
            "no source of services: name a Marathon with --marathon URL (or MARATHON_URL), an etcd with \
             --registrator URL (or REGISTRATOR_URL), or a file with --file PATH (or FILE)"
                .into(),
        );
    }
    let mut sources = source::Config::default();
    if !urls.is_empty() {
        let files = marathon::AccessFiles {
            credentials: named(&args.marathon_credentials_file),
            service_account: named(&args.dcos_service_account),
            ca_cert: named(&args.marathon_ca_cert),
        };
        let of_url =
            |reasons: Vec<String>| reasons.iter().map(|it| format!("--marathon (or MARATHON_URL) {it}")).collect();
        let config = marathon::Config::new(&urls, refresh, group).map_err(of_url);
        match config.and_then(|config| config.with_access(&files)) {
            Ok(marathon) => {
                sources.marathon = Some(marathon::Config { expose_host: args.expose_host, ..marathon });
            }
            Err(reasons) => wrong.extend(reasons),
        }
    }
    if let Some(url) = etcd {
        let files = registrator::AccessFiles {
            credentials: named(&args.registrator_credentials_file),
            ca_cert: named(&args.registrator_ca_cert),
        };
        let of_url = |reason| vec![format!("--registrator (or REGISTRATOR_URL) {reason}")];
        let config = registrator::Config::new(url, refresh).map_err(of_url);
        match config.and_then(|config| config.with_access(&files)) {
            Ok(mut registrator) => {
                registrator.expose_host = args.expose_host;
                sources.registrator = Some(registrator);
            }
            Err(reasons) => wrong.extend(reasons),
        }
    }
    if let Some(path) = path {
        match file::Config::new(path) {
            Ok(file) => sources.file = Some(file),
            Err(reason) => wrong.push(format!("--file (or FILE) {}: {reason}", path.display())),
        }
    }
    (wrong.len() == before).then_some(sources)
}

/// Returns the path of a flag; `None` for an empty variable.
fn named(path: &Option<PathBuf>) -> Option<PathBuf> {
    path.clone().filter(|path| !path.as_os_str().is_empty())
}
