//! The addresses of hosts that are names, IPv4 first, asked anew when their time is over.
//!
//! An address that was known stays good while its name cannot be resolved: a name server that is away takes no replica
//! with it, and does not hold up for long what else there is to read. `/etc/resolv.conf` and `/etc/hosts` are read anew
//! each time something is asked, so changes of them need no restart; other sources of names (NSS) are not used.

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

/// How long an address is used without asking again, whatever its name server says: at least, and at most.
const FRESH: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// How long after a failure the name is not asked for again.
const RETRY: Duration = Duration::from_secs(10);
/// How long one name may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long one name may take whose last address is still there to be used.
const TIMEOUT_KNOWN: Duration = Duration::from_secs(1);
/// How long all of them together may take.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many names are asked for at the same time.
const AT_ONCE: usize = 16;

const SLOW: &str = "the name server was too slow";

/// The names that were asked for last.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    /// Whom to ask; `None` for those of `/etc/resolv.conf`.
    servers: Option<ResolverConfig>,
    known: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    address: Result<IpAddr, String>,
    again: Instant,
}

/// An address, and until when it is good.
type Answer = Result<(IpAddr, Instant), String>;

impl Resolver {
    /// The address of each of the names, or one sentence why there is none. All other names are forgotten.
    pub(crate) async fn resolve(&mut self, names: &BTreeSet<String>) -> BTreeMap<String, Result<IpAddr, String>> {
        self.known.retain(|name, _| names.contains(name));
        let now = Instant::now();
        let due = |name: &&String| self.known.get(*name).is_none_or(|entry| entry.again <= now);
        let mut due: BTreeSet<String> = names.iter().filter(due).cloned().collect();
        if !due.is_empty() {
            match build(self.servers.clone()) {
                Ok(dns) => self.ask(&dns, &mut due).await,
                Err(error) => {
                    let reason = format!("cannot ask any name server: {error}; is /etc/resolv.conf right?");
                    std::mem::take(&mut due).into_iter().for_each(|name| self.note(name, Err(reason.clone())));
                }
            }
            due.into_iter().for_each(|name| self.note(name, Err(SLOW.into())));
        }
        self.known.iter().map(|(name, entry)| (name.clone(), entry.address.clone())).collect()
    }

    /// The address of a name as it was last said, without asking.
    pub(crate) fn known(&self, name: &str) -> Option<IpAddr> {
        self.known.get(name)?.address.as_ref().ok().copied()
    }

    /// Asks for what is due; what has no answer in time stays due.
    async fn ask(&mut self, dns: &TokioResolver, due: &mut BTreeSet<String>) {
        let patience = |name: &String| match self.known.get(name) {
            Some(entry) if entry.address.is_ok() => TIMEOUT_KNOWN,
            Some(_) | None => TIMEOUT,
        };
        let asked: Vec<_> = due.iter().map(|name| (name.clone(), patience(name))).collect();
        let ask = |(name, patience): (String, Duration)| async move {
            let answer = tokio::time::timeout(patience, lookup(dns, &name)).await;
            (answer.unwrap_or_else(|_| Err(SLOW.into())), name)
        };
        let mut answers = std::pin::pin!(stream::iter(asked).map(ask).buffer_unordered(AT_ONCE));
        let deadline = tokio::time::Instant::now() + WHOLE_TIMEOUT;
        while let Ok(Some((answer, name))) = tokio::time::timeout_at(deadline, answers.next()).await {
            due.remove(&name);
            self.note(name, answer);
        }
    }

    fn note(&mut self, name: String, answer: Answer) {
        let now = Instant::now();
        match (answer, self.known.get_mut(&name)) {
            (Err(_), Some(known)) if known.address.is_ok() => known.again = now + RETRY,
            (Err(reason), _) => {
                self.known.insert(name, Entry { address: Err(reason), again: now + RETRY });
            }
            (Ok((address, until)), _) => {
                let (least, most) = FRESH;
                let fresh = until.saturating_duration_since(now).clamp(least, most);
                self.known.insert(name, Entry { address: Ok(address), again: now + fresh });
            }
        }
    }
}

fn build(servers: Option<ResolverConfig>) -> Result<TokioResolver, NetError> {
    let mut builder = match servers {
        None => TokioResolver::builder_tokio()?,
        Some(servers) => TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default()),
    };
    let options = builder.options_mut();
    // Every host of a cluster has an IPv4 address; one question is enough for those.
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
        Err(error) if error.is_nx_domain() => Err("its name server says that there is no such name".into()),
        Err(error) if error.is_no_records_found() => Err("its name has no address".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
mod tests;
