//! The flags that name sources of services: `run` and `plan show` take the same ones.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use super::config::bounded;
use crate::source::{self, file, marathon, registrator};

/// Where services come from. Names, variables and defaults that `meltwater/proxymatic` had are kept.
#[derive(Debug, clap::Args)]
pub(super) struct SourceArgs {
    /// Where Marathon is: one URL or several, tried in order.
    #[arg(long, short = 'm', value_name = "URL", env = "MARATHON_URL", value_delimiter = ',')]
    pub(super) marathon: Vec<String>,
    /// Where registrator keeps its services in etcd: etcd://HOST:PORT/PREFIX, https:// for TLS, or several hosts with commas between.
    #[arg(long, short = 'r', value_name = "URL", env = "REGISTRATOR_URL")]
    pub(super) registrator: Option<String>,
    /// A file with user:password on its first line, for the etcd of registrator.
    #[arg(long, value_name = "PATH", env = "REGISTRATOR_CREDENTIALS_FILE")]
    pub(super) registrator_credentials_file: Option<PathBuf>,
    /// Certificates in PEM: only what they have signed is trusted as the etcd of registrator.
    #[arg(long, value_name = "PATH", env = "REGISTRATOR_CA_CERT")]
    pub(super) registrator_ca_cert: Option<PathBuf>,
    /// A file of services that come before those of any other source: PATH.toml or PATH.json, read again when it changes.
    #[arg(long, value_name = "PATH", env = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// A file with user:password on its first line, for each Marathon whose URL has none.
    #[arg(long, value_name = "PATH", env = "MARATHON_CREDENTIALS_FILE")]
    pub(super) marathon_credentials_file: Option<PathBuf>,
    /// The JSON of a DC/OS service account, which logs in for a token.
    #[arg(long, value_name = "PATH", env = "DCOS_SERVICE_ACCOUNT")]
    pub(super) dcos_service_account: Option<PathBuf>,
    /// Certificates in PEM: only what they have signed is trusted, in place of what this system trusts.
    #[arg(long, value_name = "PATH", env = "MARATHON_CA_CERT")]
    pub(super) marathon_ca_cert: Option<PathBuf>,
    /// Seconds between full reads; events come in between.
    #[arg(long, short = 'i', value_name = "SECONDS", env = "REFRESH_INTERVAL", default_value_t = 60)]
    pub(super) refresh_interval: u32,
    /// How many agents share the clients of a service: maxconn labels are divided by it.
    #[arg(long, value_name = "N", env = "GROUP_SIZE", default_value_t = 1)]
    pub(super) group_size: u32,
    /// Serve services whose port is that of their tasks on their own hosts, too.
    #[arg(long, short = 'e', env = "EXPOSE_HOST", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) expose_host: bool,
}

impl SourceArgs {
    /// Forgets the files that a check would open.
    pub(super) fn leave_files(&mut self) {
        let Self { registrator_credentials_file, registrator_ca_cert, marathon_credentials_file, .. } = self;
        let Self { dcos_service_account, marathon_ca_cert, .. } = self;
        let marathon = [marathon_credentials_file, dcos_service_account, marathon_ca_cert];
        for file in marathon.into_iter().chain([registrator_credentials_file, registrator_ca_cert]) {
            *file = None;
        }
    }
}

/// Checks what was typed, and adds a sentence to `wrong` for each thing that is no good; `None` where one was.
pub(super) fn check(args: &SourceArgs, wrong: &mut Vec<String>) -> Option<source::Config> {
    let before = wrong.len();
    let refresh = bounded("--refresh-interval", args.refresh_interval, 1, 86_400, "seconds", wrong);
    let refresh = Duration::from_secs(refresh.into());
    let group = NonZeroU32::new(args.group_size).unwrap_or_else(|| {
        wrong.push("--group-size 0: there is at least this one agent; give the number of agents, 1 or more".into());
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

/// The path of a flag that is given; an empty variable is none.
fn named(path: &Option<PathBuf>) -> Option<PathBuf> {
    path.clone().filter(|path| !path.as_os_str().is_empty())
}
