//! The flags that name sources of services, for `run` and `plan show`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use super::args::bounded;
use crate::{
    self_test,
    source::{
        Source, Sources, file,
        marathon::{self, ClaimRules},
        registrator,
    },
};

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
    /// The networks in which labels VIP_N of apps may have virtual addresses; without it none is served. Repeatable.
    #[arg(long, value_name = "CIDR", env = "VIP_NETWORKS", value_delimiter = ',')]
    pub(super) vip_networks: Vec<String>,
    /// Serve virtual addresses that are names, /NAME:PORT in a label VIP_N, at their port on every host.
    #[arg(long, env = "VIP_NAMES", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) vip_names: bool,
    /// The number of ports and virtual addresses that one app or pod may have.
    #[arg(long, value_name = "N", env = "MAX_PORTS_PER_APP", default_value_t = 100)]
    pub(super) max_ports_per_app: u32,
    /// Which apps may join the service of another app that owns the port.
    #[arg(long, value_name = "APPS", env = "PORT_SHARE", default_value = "group", value_enum)]
    pub(super) share: ShareArg,
    /// The app that owns a service port, whatever else claims it, such as 8080=/shop/web. Repeatable.
    #[arg(long, value_name = "PORT=APP", env = "PORT_OWNER", value_delimiter = ',')]
    pub(super) owner: Vec<String>,
}

/// The values of `--share`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ShareArg {
    /// Apps of the same Marathon group, and those that the owner's label `share` names.
    Group,
    /// Every app.
    Anyone,
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

/// Checks the flags, and adds a sentence to `wrong` for each error; `None` if there was one.
pub(super) fn check(args: &SourceArgs, wrong: &mut Vec<String>) -> Option<Sources> {
    let before = wrong.len();
    let refresh = bounded("--refresh-interval", args.refresh_interval, 1, 86_400, "seconds", wrong);
    let refresh = Duration::from_secs(refresh.into());
    let group = NonZeroU32::new(args.group_size).unwrap_or_else(|| {
        wrong.push("--group-size 0: must be at least 1, for this agent".into());
        NonZeroU32::MIN
    });
    let mut sources = Sources::default();
    let mut given = false;
    let registrator = registrator(args, refresh);
    let mut marathon = marathon(args, refresh, group);
    let mut claims = claim_rules(args, wrong);
    if let Some(Ok(config)) = &mut marathon {
        protect(&mut claims, config.locations(), "an address of Marathon");
        protect(&mut claims, registrator_locations(&registrator), "an address of registrator's etcd");
        config.claims = claims;
    }
    given |= add(&mut sources, marathon, wrong);
    given |= add(&mut sources, registrator, wrong);
    given |= add(&mut sources, file(args), wrong);
    if !given {
        wrong.push(
            "no source of services: name a Marathon with --marathon URL (or MARATHON_URL), an etcd with \
             --registrator URL (or REGISTRATOR_URL), or a file with --file PATH (or FILE)"
                .into(),
        );
    }
    (wrong.len() == before).then_some(sources)
}

/// A source with its configuration, or one sentence for each error; `None` if the flag is not given.
type Checked<T> = Option<Result<T, Vec<String>>>;

/// Adds a source, or its errors to `wrong`. Returns whether the flag of the source is given.
fn add(sources: &mut Sources, source: Checked<impl Source + 'static>, wrong: &mut Vec<String>) -> bool {
    let given = source.is_some();
    match source {
        Some(Ok(source)) => sources.add(source),
        Some(Err(reasons)) => wrong.extend(reasons),
        None => {}
    }
    given
}

fn marathon(args: &SourceArgs, refresh: Duration, group: NonZeroU32) -> Checked<marathon::Config> {
    let urls: Vec<&str> = args.marathon.iter().map(String::as_str).filter(|url| !url.trim().is_empty()).collect();
    if urls.is_empty() {
        return None;
    }
    let files = marathon::AccessFiles {
        credentials: given_path(&args.marathon_credentials_file),
        service_account: given_path(&args.dcos_service_account),
        ca_cert: given_path(&args.marathon_ca_cert),
    };
    let with_flag =
        |reasons: Vec<String>| reasons.iter().map(|it| format!("--marathon (or MARATHON_URL) {it}")).collect();
    let config = marathon::Config::new(&urls, refresh, group).map_err(with_flag);
    let config = config.and_then(|config| config.with_access(&files));
    Some(config.map(|config| marathon::Config { expose_host: args.expose_host, ..config }))
}

/// Reads the rules about claims of apps. Adds a sentence to `wrong` for each error.
fn claim_rules(args: &SourceArgs, wrong: &mut Vec<String>) -> ClaimRules {
    let mut vip_networks = Vec::new();
    for text in args.vip_networks.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => vip_networks.push(network),
            Err(_) => wrong.push(format!(
                "--vip-networks (or VIP_NETWORKS) {text}: must be a network such as 11.0.0.0/8 or fd00::/64"
            )),
        }
    }
    let most = bounded("--max-ports-per-app", args.max_ports_per_app, 1, 65_535, "ports", wrong);
    let self_test = self_test::KEY.address.map(|address| (address.to_string(), "the address of the self-test".into()));
    ClaimRules {
        vip_networks,
        vip_names: args.vip_names,
        max_ports_per_app: most as usize,
        share_anyone: args.share == ShareArg::Anyone,
        owners: owners(&args.owner, wrong),
        protected: self_test.into_iter().collect(),
    }
}

/// Reads the owners of service ports. Adds a sentence to `wrong` for each error.
fn owners(texts: &[String], wrong: &mut Vec<String>) -> BTreeMap<u16, String> {
    let mut owners = BTreeMap::new();
    for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let parsed = text.split_once('=').and_then(|(port, app)| {
            let port = port.trim().parse().ok().filter(|port| *port > 0)?;
            let app = app.trim();
            let is_id =
                app.len() > 1 && app.starts_with('/') && !app.ends_with('/') && !app.contains(char::is_whitespace);
            is_id.then_some((port, app))
        });
        let Some((port, app)) = parsed else {
            wrong.push(format!("--owner (or PORT_OWNER) {text}: must be PORT=APP, such as 8080=/shop/web"));
            continue;
        };
        match owners.insert(port, app.to_owned()) {
            Some(other) if other != app => {
                wrong.push(format!(
                    "--owner (or PORT_OWNER) {text}: {other} owns port {port} already; name one app for each port"
                ));
            }
            Some(_) | None => {}
        }
    }
    owners
}

/// Adds the hosts of URLs to what no app may claim.
fn protect(claims: &mut ClaimRules, urls: BTreeSet<String>, what: &str) {
    let hosts = urls.iter().filter_map(|url| reqwest::Url::parse(url).ok()?.host_str().map(str::to_owned));
    claims.protected.extend(hosts.map(|host| (host, what.to_owned())));
}

fn registrator_locations(registrator: &Checked<registrator::Config>) -> BTreeSet<String> {
    match registrator {
        Some(Ok(config)) => config.locations(),
        Some(Err(_)) | None => BTreeSet::new(),
    }
}

fn registrator(args: &SourceArgs, refresh: Duration) -> Checked<registrator::Config> {
    let url = args.registrator.as_deref().map(str::trim).filter(|url| !url.is_empty())?;
    let files = registrator::AccessFiles {
        credentials: given_path(&args.registrator_credentials_file),
        ca_cert: given_path(&args.registrator_ca_cert),
    };
    let with_flag = |reason| vec![format!("--registrator (or REGISTRATOR_URL) {reason}")];
    let config = registrator::Config::new(url, refresh).map_err(with_flag);
    let config = config.and_then(|config| config.with_access(&files));
    Some(config.map(|mut config| {
        config.expose_host = args.expose_host;
        config
    }))
}

fn file(args: &SourceArgs) -> Checked<file::Config> {
    let path = given_path(&args.file)?;
    let with_flag = |reason| vec![format!("--file (or FILE) {}: {reason}", path.display())];
    Some(file::Config::new(&path).map_err(with_flag))
}

/// Returns the path of a flag that is given; an empty variable counts as not given.
fn given_path(path: &Option<PathBuf>) -> Option<PathBuf> {
    path.clone().filter(|path| !path.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        sources: SourceArgs,
    }

    fn marathon_of(line: &str) -> marathon::Config {
        let line = Line::parse_from(std::iter::once("run").chain(line.split_whitespace()));
        let refresh = Duration::from_secs(line.sources.refresh_interval.into());
        let group = NonZeroU32::new(line.sources.group_size).unwrap();
        marathon(&line.sources, refresh, group).unwrap().unwrap()
    }

    #[test]
    fn defaults_of_marathon_are_those_of_the_replaced_container() {
        let config = marathon_of("--marathon http://marathon.example:8080");
        assert_eq!(config.timing.refresh, Duration::from_secs(60));
        assert_eq!(config.group_size.get(), 1);
        assert!(!config.expose_host);
        assert!(marathon_of("--marathon http://marathon.example:8080 --expose-host").expose_host);
    }

    fn claims_of(line: &str) -> ClaimRules {
        let Line { sources } = Line::parse_from(std::iter::once("run").chain(line.split_whitespace()));
        let mut wrong = Vec::new();
        let claims = claim_rules(&sources, &mut wrong);
        assert_eq!(wrong, [""; 0]);
        claims
    }

    #[test]
    fn no_virtual_address_is_permitted_by_default() {
        let claims = claims_of("");
        assert_eq!((claims.vip_networks, claims.vip_names, claims.max_ports_per_app), (vec![], false, 100));
        let claims = claims_of("--vip-networks 11.0.0.0/8,fd00::/64 --vip-networks 192.0.2.1 --vip-names");
        assert_eq!(
            claims.vip_networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["11.0.0.0/8", "fd00::/64", "192.0.2.1/32"]
        );
        assert!(claims.vip_names);
    }

    #[test]
    fn owners_and_sharing_are_read_from_flags() {
        let claims = claims_of("");
        assert_eq!((claims.share_anyone, claims.owners), (false, BTreeMap::new()));
        let claims = claims_of("--share anyone --owner 80=/edge/web,53=/dns --owner 80=/edge/web");
        assert!(claims.share_anyone);
        assert_eq!(claims.owners, [(53, "/dns".to_owned()), (80, "/edge/web".to_owned())].into());
    }

    #[test]
    fn hosts_of_all_sources_and_the_self_test_are_protected() {
        let mut claims = claims_of("");
        let urls = ["http://m1:8080", "https://[fd00::5]/marathon"].map(str::to_owned).into();
        protect(&mut claims, urls, "an address of Marathon");
        let hosts: Vec<_> = claims.protected.keys().map(String::as_str).collect();
        assert_eq!(hosts, ["192.0.0.8", "[fd00::5]", "m1"]);
    }
}
