//! Resolves names of hosts to addresses, IPv4 first, and resolves them again after their time to live.
//!
//! A known address stays valid while its name cannot be resolved: a name server that is down removes no backend, and
//! delays the read only for a short time. Each query reads `/etc/resolv.conf` and `/etc/hosts` again, so their changes
//! need no restart. Other sources of names (NSS) are not used.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
};

/// The shortest and the longest time between two queries for a known address, whatever its time to live is.
const FRESH: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// The time from a failure to the next query.
const RETRY: Duration = Duration::from_secs(10);
/// The longest time for one name.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The longest time for one name that has a known address.
const TIMEOUT_KNOWN: Duration = Duration::from_secs(1);
/// The longest time for all names together.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many names are resolved at the same time.
const AT_ONCE: usize = 16;

const SLOW: &str = "the name server was too slow";

/// The names of the last call, with their addresses.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    /// The name servers; `None` for those of `/etc/resolv.conf`.
    servers: Option<ResolverConfig>,
    known: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    address: Result<IpAddr, String>,
    next_query: Instant,
}

/// An address, and the end of its time to live.
type Answer = Result<(IpAddr, Instant), String>;

impl Resolver {
    /// Returns the address of each name, or one sentence why there is none. All other names are forgotten.
    pub(crate) async fn resolve(&mut self, names: &BTreeSet<String>) -> BTreeMap<String, Result<IpAddr, String>> {
        self.known.retain(|name, _| names.contains(name));
        let now = Instant::now();
        let due = |name: &&String| self.known.get(*name).is_none_or(|entry| entry.next_query <= now);
        let mut due: BTreeSet<String> = names.iter().filter(due).cloned().collect();
        if !due.is_empty() {
            match build(self.servers.clone()) {
                Ok(dns) => self.query(&dns, &mut due).await,
                Err(error) => {
                    let reason = format!("cannot reach a name server: {error}; is /etc/resolv.conf right?");
                    std::mem::take(&mut due).into_iter().for_each(|name| self.note(name, Err(reason.clone())));
                }
            }
            due.into_iter().for_each(|name| self.note(name, Err(SLOW.into())));
        }
        self.known.iter().map(|(name, entry)| (name.clone(), entry.address.clone())).collect()
    }

    /// Returns the known address of a name, without a query.
    pub(crate) fn known(&self, name: &str) -> Option<IpAddr> {
        self.known.get(name)?.address.as_ref().ok().copied()
    }

    /// Queries the names that are due. A name without an answer in time stays due.
    async fn query(&mut self, dns: &TokioResolver, due: &mut BTreeSet<String>) {
        let timeout = |name: &String| match self.known.get(name) {
            Some(entry) if entry.address.is_ok() => TIMEOUT_KNOWN,
            Some(_) | None => TIMEOUT,
        };
        let queries: Vec<_> = due.iter().map(|name| (name.clone(), timeout(name))).collect();
        let query = |(name, timeout): (String, Duration)| async move {
            let answer = tokio::time::timeout(timeout, lookup(dns, &name)).await;
            (answer.unwrap_or_else(|_| Err(SLOW.into())), name)
        };
        let mut answers = std::pin::pin!(stream::iter(queries).map(query).buffer_unordered(AT_ONCE));
        let deadline = tokio::time::Instant::now() + WHOLE_TIMEOUT;
        while let Ok(Some((answer, name))) = tokio::time::timeout_at(deadline, answers.next()).await {
            due.remove(&name);
            self.note(name, answer);
        }
    }

    /// Stores an answer.
    fn note(&mut self, name: String, answer: Answer) {
        let now = Instant::now();
        match (answer, self.known.get_mut(&name)) {
            (Err(_), Some(known)) if known.address.is_ok() => known.next_query = now + RETRY,
            (Err(reason), _) => {
                self.known.insert(name, Entry { address: Err(reason), next_query: now + RETRY });
            }
            (Ok((address, until)), _) => {
                let (least, most) = FRESH;
                let fresh = until.saturating_duration_since(now).clamp(least, most);
                self.known.insert(name, Entry { address: Ok(address), next_query: now + fresh });
            }
        }
    }
}

/// Returns the addresses of the name servers in `/etc/resolv.conf`; none if it cannot be read.
pub(crate) fn name_servers() -> BTreeSet<IpAddr> {
    let read = hickory_resolver::system_conf::read_system_conf();
    read.map(|(config, _)| config.name_servers().iter().map(|server| server.ip).collect()).unwrap_or_default()
}

fn build(servers: Option<ResolverConfig>) -> Result<TokioResolver, NetError> {
    let mut builder = match servers {
        None => TokioResolver::builder_tokio()?,
        Some(servers) => TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default()),
    };
    let options = builder.options_mut();
    // Every host of a cluster has an IPv4 address, so one query is enough for it.
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    options.cache_size = 0;
    builder.build()
}

async fn lookup(dns: &TokioResolver, name: &str) -> Answer {
    match dns.lookup_ip(name).await {
        Ok(found) => match found.iter().next() {
            Some(address) => Ok((address, found.valid_until())),
            None => Err("its name has no address".into()),
        },
        Err(error) if error.is_nx_domain() => Err("its name server has no such name".into()),
        Err(error) if error.is_no_records_found() => Err("its name has no address".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
mod tests;
