//! One read: requests what has changed, or everything, and does the lookups that the conversion needs.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    api::{App, Lenient, Listing, Pod, PodStatus},
    claim_check::protected_names,
    client::Client,
    convert,
    definition_cache::DefinitionCache,
    first_versions::{FirstVersionTimes, FirstVersions},
    health_carryover::HealthCarryover,
    health_results::awaited_results,
    lookups::{AppVersion, Lookups, Options},
    pending_refresh::RefreshScope,
    pods::Pods,
    task_notes::TaskNotes,
    task_started::TaskStarted,
};
use crate::{
    model::Snapshot,
    source::{
        failure::Failure,
        resolve::{Resolver, name_servers},
    },
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
    pub(super) notes: TaskNotes,
    /// The apps that must be read again without any event, each after this time.
    pub(super) awaited: BTreeMap<String, Duration>,
}

/// The result of a conversion: the snapshot, the notes, the apps to read again, and the listing.
type Converted = (Snapshot, TaskNotes, BTreeMap<String, Duration>, Listing);

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
    first_versions: FirstVersions,
    /// The apps of the listing before, without their tasks. Some tasks may still run these definitions.
    earlier: BTreeMap<AppVersion, App>,
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
            first_versions: FirstVersions::default(),
            earlier: BTreeMap::new(),
        }
    }

    /// Reads the scope. The owners of what is `served` stay.
    ///
    /// Steps that take long in a large cluster run on other threads, so that events are handled meanwhile.
    pub(super) async fn read(&mut self, scope: RefreshScope, served: Snapshot) -> Result<Response, Failure> {
        let (at, scope, listing) = match self.read_apps(scope).await? {
            Some(it) => it,
            None => self.read_all().await?,
        };
        let (listing, mut required) = offload(move || {
            let required = convert::required_lookups(&listing);
            (listing, required)
        })
        .await?;
        required.hosts.extend(protected_names(&self.options.claims).cloned());
        for (key, app) in std::mem::take(&mut self.earlier) {
            if required.definitions.contains(&key) {
                self.app_definitions.add(key, app);
            }
        }
        let client = self.client;
        let app = |(id, version): AppVersion| async move { client.definition(&id, &version).await };
        let definitions = self.app_definitions.fetch(&required.definitions, app).await?;
        let pod = |(id, version): AppVersion| async move { client.pod_definition(&id, &version).await };
        let pods = self.pod_definitions.fetch(&required.pods, pod).await?;
        let name_servers = self.options.claims.vip_networks.first().map(|_| name_servers()).unwrap_or_default();
        let hosts = self.hosts.resolve(&required.hosts).await;
        let (first_versions, clock) = (FirstVersionTimes::default(), client.server_clock());
        let lookups = Lookups { definitions, pods, hosts, name_servers, clock, served, first_versions };
        let (read, lookups) = self.convert(listing, lookups).await?;
        let (snapshot, notes, awaited, listing) = match read.1.undecided.is_empty() {
            true => read,
            false => self.decide(read, lookups).await?,
        };
        self.listing = Some(listing);
        self.last = snapshot.clone();
        Ok(Response { at, scope, snapshot, notes, awaited })
    }

    async fn convert(&self, listing: Listing, lookups: Lookups) -> Result<(Converted, Lookups), Failure> {
        let (options, last) = (self.options.clone(), self.last.clone());
        offload(move || {
            let (mut snapshot, notes) = convert::convert_with_notes(&listing, &lookups, &options);
            snapshot.share(&last);
            ((snapshot, notes, awaited_results(&listing.apps), listing), lookups)
        })
        .await
    }

    /// Converts again, with the first versions that decide the owners of services.
    async fn decide(&mut self, (_, notes, _, listing): Converted, lookups: Lookups) -> Result<Converted, Failure> {
        let client = self.client;
        let is_pod = |id: &str| listing.pods.iter().any(|pod| has_id(pod, id));
        let request = |id: String| {
            let is_pod = is_pod(&id);
            async move { client.first_version(&id, is_pod).await }
        };
        let first_versions = self.first_versions.fetch(&notes.undecided, request).await;
        Ok(self.convert(listing, Lookups { first_versions, ..lookups }).await?.0)
    }

    /// Returns the services of a task that has started, by the definition that was read last; `None` if the definition or
    /// the address of the host must be requested first.
    pub(super) fn started(&self, started: &TaskStarted) -> Option<Snapshot> {
        started.convert(self.listing.as_ref()?, |name| self.hosts.known(name), &self.options)
    }

    /// Reads everything.
    async fn read_all(&mut self) -> Result<(Instant, RefreshScope, Listing), Failure> {
        if let Some(old) = self.listing.take() {
            self.earlier = offload(move || {
                let apps =
                    old.apps.into_iter().filter_map(|app| if let Lenient::Good(app) = app { Some(app) } else { None });
                apps.map(without_tasks).collect()
            })
            .await?;
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

    /// Reads the apps and pods of the scope, and returns the last listing with them. `None` if everything must be read: one
    /// that was in the listing does not exist any more, one that was not cannot be read, or the leader has changed.
    async fn read_apps(&mut self, scope: RefreshScope) -> Result<Option<(Instant, RefreshScope, Listing)>, Failure> {
        let RefreshScope::Apps(ids) = &scope else { return Ok(None) };
        let Some(listing) = &self.listing else { return Ok(None) };
        let is_pod = |id: &str| listing.pods.iter().any(|pod| has_id(pod, id));
        let is_app = |id: &str| listing.apps.iter().any(|app| has_id(app, id));
        let known: Vec<_> = ids.iter().map(|id| (id.clone(), is_app(id), is_pod(id))).collect();
        let client = self.client;
        let (at, leader) = (client.clock().now(), client.leader());
        let request =
            |(id, is_app, is_pod): (String, bool, bool)| async move { read_one(client, &id, is_app, is_pod).await };
        let all = stream::iter(known).map(request).buffer_unordered(AT_ONCE).try_collect::<Vec<One>>().await;
        let all = match all {
            Ok(all) if client.leader() == leader && all.iter().all(|one| !matches!(one, One::Unclear)) => all,
            // Only a listing without the app proves that it is gone.
            Ok(_) | Err(Failure { not_found: true, .. }) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let Some(mut listing) = self.listing.take() else { return Ok(None) };
        for one in all {
            match one {
                One::App(mut app) => {
                    self.health.apply_to_app(&mut app, at);
                    if let Some(Lenient::Good(before)) = replace(&mut listing.apps, *app) {
                        self.earlier.extend([without_tasks(before)]);
                    }
                }
                One::Pod(mut pod) => {
                    self.pods.replace(&pod);
                    self.health.apply_to_pod(&mut pod, at);
                    let _ = replace(&mut listing.pods, pod);
                }
                One::Missing | One::Unclear => {}
            }
        }
        Ok(Some((at, scope, listing)))
    }
}

/// What was read alone.
enum One {
    App(Box<App>),
    Pod(PodStatus),
    /// Neither an app nor a pod. None was known before.
    Missing,
    /// Marathon refuses to tell, such as a user who may not see the app. None was known before.
    Unclear,
}

/// Reads one app or pod, which the last listing may know.
///
/// # Errors
/// The request failed, or an app or pod that was known does not exist.
async fn read_one(client: &Client, id: &str, is_app: bool, is_pod: bool) -> Result<One, Failure> {
    if !is_pod {
        match client.app(id).await {
            Ok(app) => return Ok(One::App(app.into())),
            Err(failure) if is_app => return Err(failure),
            Err(failure) if !failure.not_found => return Ok(One::Unclear),
            Err(_) => {}
        }
    }
    match client.pod(id).await {
        Ok(pod) => Ok(One::Pod(pod)),
        Err(failure) if is_pod => Err(failure),
        Err(failure) if !failure.not_found => Ok(One::Unclear),
        Err(_) => Ok(One::Missing),
    }
}

/// Puts one into a list in the place of the one with its id, which is returned, or at the end.
fn replace<T: HasId>(all: &mut Vec<Lenient<T>>, one: T) -> Option<Lenient<T>> {
    match all.iter_mut().find(|it| has_id(it, one.id())) {
        Some(place) => Some(std::mem::replace(place, Lenient::Good(one))),
        None => {
            all.push(Lenient::Good(one));
            None
        }
    }
}

/// Returns the definition of an app that was listed, with its key.
fn without_tasks(app: App) -> (AppVersion, App) {
    ((app.id.clone(), app.version.clone()), App { tasks: Vec::new(), ..app })
}

/// An app or a pod.
trait HasId {
    fn id(&self) -> &str;
}

impl HasId for App {
    fn id(&self) -> &str {
        &self.id
    }
}

impl HasId for PodStatus {
    fn id(&self) -> &str {
        &self.id
    }
}

/// Runs work that takes long on another thread.
async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::without_url("Marathon's response", format!("cannot be read: {error}")))
}

fn has_id<T: HasId>(one: &Lenient<T>, id: &str) -> bool {
    match one {
        Lenient::Good(it) => it.id() == id,
        Lenient::Bad { id: its, .. } => its.as_deref() == Some(id),
    }
}
