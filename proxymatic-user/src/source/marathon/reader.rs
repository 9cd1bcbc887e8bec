//! One read: requests what has changed, or everything, and does the lookups that the conversion needs.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    api::{App, Lenient, Listing, Pod},
    client::Client,
    convert,
    definition_cache::DefinitionCache,
    health_carryover::HealthCarryover,
    health_results::awaited_results,
    lookups::{AppVersion, Lookups, Options},
    pending_refresh::RefreshScope,
    pods::Pods,
    task_started::TaskStarted,
};
use crate::{
    model::Snapshot,
    source::{failure::Failure, resolve::Resolver},
};

/// How many apps are requested at the same time.
const AT_ONCE: usize = 4;

/// The response to a read.
#[derive(Debug)]
pub(super) struct Response {
    /// When the first request was sent.
    pub(super) at: Instant,
    /// What was read.
    pub(super) scope: RefreshScope,
    /// The snapshot of everything.
    pub(super) snapshot: Snapshot,
    /// The apps that must be read again without any event, each after this time.
    pub(super) awaited: BTreeMap<String, Duration>,
}

/// The client, and what a read keeps for the next one.
pub(super) struct Reader<'a> {
    client: &'a Client,
    options: Options,
    /// The last listing, with the single apps that were read since.
    listing: Option<Listing>,
    /// The result of the last read. The next snapshot shares unchanged services with it.
    last: Snapshot,
    health: HealthCarryover,
    hosts: Resolver,
    pods: Pods,
    pod_definitions: DefinitionCache<Pod>,
    app_definitions: DefinitionCache<App>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(client: &'a Client, options: Options, adopted: &Snapshot) -> Self {
        Self {
            client,
            options,
            listing: None,
            last: Snapshot::default(),
            health: HealthCarryover::after(adopted),
            hosts: Resolver::default(),
            pods: Pods::default(),
            pod_definitions: DefinitionCache::default(),
            app_definitions: DefinitionCache::default(),
        }
    }

    /// Reads the scope.
    ///
    /// Steps that take long in a large cluster run on other threads, so that events are handled meanwhile.
    pub(super) async fn read(&mut self, scope: RefreshScope) -> Result<Response, Failure> {
        let (at, scope, listing) = match self.read_apps(scope).await? {
            Some(it) => it,
            None => self.read_all().await?,
        };
        let (listing, required) = offload(move || {
            let required = convert::required_lookups(&listing);
            (listing, required)
        })
        .await?;
        let client = self.client;
        let app = |(id, version): AppVersion| async move { client.definition(&id, &version).await };
        let definitions = self.app_definitions.fetch(&required.definitions, app).await?;
        let pod = |(id, version): AppVersion| async move { client.pod_definition(&id, &version).await };
        let pods = self.pod_definitions.fetch(&required.pods, pod).await?;
        let lookups = Lookups { definitions, pods, hosts: self.hosts.resolve(&required.hosts).await };
        let (options, last) = (self.options, self.last.clone());
        let (snapshot, awaited, listing) = offload(move || {
            let mut snapshot = convert::convert(&listing, &lookups, options);
            snapshot.share(&last);
            (snapshot, awaited_results(&listing.apps), listing)
        })
        .await?;
        self.listing = Some(listing);
        self.last = snapshot.clone();
        Ok(Response { at, scope, snapshot, awaited })
    }

    /// Returns the services of a task that has started, by the definition that was read last; `None` if the definition or
    /// the address of the host must be requested first.
    pub(super) fn started(&self, started: &TaskStarted) -> Option<Snapshot> {
        started.convert(self.listing.as_ref()?, |name| self.hosts.known(name), self.options)
    }

    /// Reads everything.
    async fn read_all(&mut self) -> Result<(Instant, RefreshScope, Listing), Failure> {
        if let Some(old) = self.listing.take() {
            offload(move || drop(old)).await?;
        }
        let (at, mut listing) = self.client.apps().await?;
        self.pods.fetch(self.client, &mut listing).await;
        let mut health = std::mem::take(&mut self.health);
        let (listing, health) = offload(move || {
            health.apply(&mut listing, at);
            (listing, health)
        })
        .await?;
        self.health = health;
        Ok((at, RefreshScope::All, listing))
    }

    /// Reads the apps of the scope, and returns the last listing with them. `None` if everything must be read: an app was
    /// not in the listing, or does not exist any more, or the leader has changed.
    async fn read_apps(&mut self, scope: RefreshScope) -> Result<Option<(Instant, RefreshScope, Listing)>, Failure> {
        let RefreshScope::Apps(ids) = &scope else { return Ok(None) };
        let Some(listing) = &self.listing else { return Ok(None) };
        if !ids.iter().all(|id| listing.apps.iter().any(|app| has_id(app, id))) {
            return Ok(None);
        }
        let client = self.client;
        let (at, leader) = (Instant::now(), client.leader());
        let request = |id: String| async move { client.app(&id).await };
        let apps = stream::iter(ids.clone()).map(request).buffer_unordered(AT_ONCE).try_collect::<Vec<App>>().await;
        let apps = match apps {
            Ok(apps) if client.leader() == leader => apps,
            // Only a listing without the app proves that it is gone.
            Ok(_) | Err(Failure { not_found: true, .. }) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let Some(mut listing) = self.listing.take() else { return Ok(None) };
        for mut app in apps {
            self.health.apply_to_app(&mut app, at);
            if let Some(place) = listing.apps.iter_mut().find(|it| has_id(it, &app.id)) {
                *place = Lenient::Good(app);
            }
        }
        Ok(Some((at, scope, listing)))
    }
}

/// Runs work that takes long on another thread.
async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::without_url("Marathon's response", format!("cannot be read: {error}")))
}

fn has_id(app: &Lenient<App>, id: &str) -> bool {
    match app {
        Lenient::Good(app) => app.id == id,
        Lenient::Bad { id: its, .. } => its.as_deref() == Some(id),
    }
}
