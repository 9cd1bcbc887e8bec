//! One read: asks for what has changed, or for everything, and looks up what that needs to be understood.

use std::{sync::atomic::AtomicBool, time::Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    api::{App, Lenient, Listing, Pod},
    client::Client,
    convert::{self, AppVersion, Lookups, Options},
    definition_cache::DefinitionCache,
    failure::Failure,
    health_carryover::HealthCarryover,
    pending_refresh::RefreshScope,
    pods::Pods,
    task_started::TaskStarted,
};
use crate::{model::Snapshot, source::resolve::Resolver};

/// How many apps are asked for at the same time.
const AT_ONCE: usize = 4;

/// Everything that one read needs, and what it remembers for the next.
pub(super) struct Reader<'a> {
    client: &'a Client,
    rules: Options,
    /// The last listing, with what was read of single apps since.
    listing: Option<Listing>,
    /// What was read last: the next one shares with it what is the same.
    last: Snapshot,
    carry: HealthCarryover,
    hosts: Resolver,
    pods: Pods,
    pod_versions: DefinitionCache<Pod>,
    versions: DefinitionCache<App>,
    /// Whether the last read had a good answer.
    pub(super) works: &'a AtomicBool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(client: &'a Client, rules: Options, adopted: &Snapshot, works: &'a AtomicBool) -> Self {
        Self {
            client,
            rules,
            listing: None,
            last: Snapshot::default(),
            carry: HealthCarryover::after(adopted),
            hosts: Resolver::default(),
            pods: Pods::default(),
            pod_versions: DefinitionCache::default(),
            versions: DefinitionCache::default(),
            works,
        }
    }

    /// Everything Marathon knows: when it was asked, what of it was asked for now, and all of it.
    ///
    /// Whatever takes long with a large cluster is done on other threads, so that events are taken meanwhile.
    pub(super) async fn read(&mut self, scope: RefreshScope) -> Result<(Instant, RefreshScope, Snapshot), Failure> {
        let (at, scope, listing) = match self.some(scope).await? {
            Some(it) => it,
            None => self.all().await?,
        };
        let (listing, needs) = offload(move || {
            let needs = convert::needs(&listing);
            (listing, needs)
        })
        .await?;
        let client = self.client;
        let of_app = |(id, version): AppVersion| async move { client.definition(&id, &version).await };
        let definitions = self.versions.fetch(&needs.definitions, of_app).await?;
        let of_pod = |(id, version): AppVersion| async move { client.pod_definition(&id, &version).await };
        let pods = self.pod_versions.fetch(&needs.pods, of_pod).await?;
        let found = Lookups { definitions, pods, hosts: self.hosts.resolve(&needs.hosts).await };
        let (rules, last) = (self.rules, self.last.clone());
        let (snapshot, listing) = offload(move || {
            let mut snapshot = convert::read(&listing, &found, rules);
            snapshot.share(&last);
            (snapshot, listing)
        })
        .await?;
        self.listing = Some(listing);
        self.last = snapshot.clone();
        Ok((at, scope, snapshot))
    }

    /// What a task that has begun to run serves, by the definition that was read last; `None` where that, or the
    /// address of its host, has to be asked for.
    pub(super) fn started(&self, start: &TaskStarted) -> Option<Snapshot> {
        start.read(self.listing.as_ref()?, |name| self.hosts.known(name), self.rules)
    }

    /// Everything, asked for now.
    async fn all(&mut self) -> Result<(Instant, RefreshScope, Listing), Failure> {
        if let Some(old) = self.listing.take() {
            offload(move || drop(old)).await?;
        }
        let (at, mut listing) = self.client.apps().await?;
        self.pods.fetch(self.client, &mut listing).await;
        let mut carry = std::mem::take(&mut self.carry);
        let (listing, carry) = offload(move || {
            carry.apply(&mut listing, at);
            (listing, carry)
        })
        .await?;
        self.carry = carry;
        Ok((at, RefreshScope::All, listing))
    }

    /// The last listing with these apps as they are now. `None` where everything has to be read: some of them were not
    /// in the listing, or are not there any more, or another Marathon leads.
    async fn some(&mut self, scope: RefreshScope) -> Result<Option<(Instant, RefreshScope, Listing)>, Failure> {
        let RefreshScope::Apps(ids) = &scope else { return Ok(None) };
        let Some(listing) = &self.listing else { return Ok(None) };
        if !ids.iter().all(|id| listing.apps.iter().any(|app| is(app, id))) {
            return Ok(None);
        }
        let client = self.client;
        let (at, leader) = (Instant::now(), client.leader());
        let ask = |id: String| async move { client.app(&id).await };
        let asked = stream::iter(ids.clone()).map(ask).buffer_unordered(AT_ONCE).try_collect::<Vec<App>>().await;
        let answers = match asked {
            Ok(answers) if client.leader() == leader => answers,
            // Only a listing that does not have it either says that an app is gone.
            Ok(_) | Err(Failure { not_found: true, .. }) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let Some(mut listing) = self.listing.take() else { return Ok(None) };
        for mut app in answers {
            self.carry.over_app(&mut app, at);
            if let Some(place) = listing.apps.iter_mut().find(|it| is(it, &app.id)) {
                *place = Lenient::Good(app);
            }
        }
        Ok(Some((at, scope, listing)))
    }
}

/// Does something that takes long, while this thread goes on with other things.
async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure {
        url: "Marathon's answer".into(),
        what: format!("cannot be read: {error}"),
        not_found: false,
    })
}

fn is(app: &Lenient<App>, id: &str) -> bool {
    match app {
        Lenient::Good(app) => app.id == id,
        Lenient::Bad { id: its, .. } => its.as_deref() == Some(id),
    }
}
