//! Converts pods: instances of containers that share an address. Marathon assigns pods no service ports; labels of their
//! endpoints do.
//!
//! The endpoints of an instance are joined with those of its definition by the names of container and endpoint. The
//! definition is the version that the instance was started from.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use super::{reading::Reading, task_state::mesos_state};
use crate::{
    model::{Health, PortLabels, Protocol, TaskState, TaskStatus},
    source::marathon::{
        api::{ContainerStatus, EndpointStatus, Lenient, Pod, PodEndpoint, PodInstance, PodStatus, good},
        claim::{PortClaim, ServiceClaim, service_keys},
        claim_check::PortVips,
        lookups::{RequiredLookups, parse_address},
        merge::Member,
        ports,
        timestamp::millis,
    },
};

/// The word in the message of an instance whose agent has lost contact with the Mesos master.
const UNREACHABLE: &str = "unreachable";

/// Returns the version in a `specReference` such as `/v2/pods/p::versions/2020-05-01T10:00:00.1Z`.
pub fn pod_version(reference: &str) -> Option<&str> {
    reference.rsplit_once("::versions/").map(|(_, version)| version).filter(|version| !version.is_empty())
}

/// Adds the lookups that pods need.
pub(super) fn required_lookups(pods: &[Lenient<PodStatus>], required: &mut RequiredLookups) {
    for pod in good(pods) {
        for instance in good(&pod.instances).filter(|instance| has_endpoints(instance)) {
            required.pods.extend(earlier_version(pod, instance).map(|version| (pod.id.clone(), version.to_owned())));
            let host = &instance.agent_hostname;
            let mut endpoints = instance.containers.iter().flat_map(|container| &container.endpoints);
            let on_host = endpoints.any(|endpoint| endpoint.allocated_host_port.is_some());
            if on_host && !host.is_empty() && parse_address(host).is_none() {
                required.hosts.insert(host.clone());
            }
        }
    }
}

/// Returns whether an instance has a container with endpoints. Marathon lists none of a container that does not run.
fn has_endpoints(instance: &PodInstance) -> bool {
    instance.containers.iter().any(|container| !container.endpoints.is_empty())
}

/// Returns the version that an instance was started from, if it is not the present one.
fn earlier_version<'a>(pod: &PodStatus, instance: &'a PodInstance) -> Option<&'a str> {
    let present = pod.spec.version.as_str();
    // Marathon writes the version of the definition to the millisecond, and the one of the instance to the nanosecond.
    let same = |version: &str| match (millis(version), millis(present)) {
        (Some(version), Some(present)) => version == present,
        _ => version == present,
    };
    pod_version(&instance.spec_reference).filter(|version| !present.is_empty() && !same(version))
}

/// One endpoint of a definition.
struct Port<'a> {
    endpoint: &'a PodEndpoint,
    labels: PortLabels,
    vips: PortVips<'a>,
    protocols: &'static [Protocol],
    /// Whether its container has a health check.
    checked: bool,
}

impl<'a> Port<'a> {
    /// Returns the services that the endpoint claims.
    fn claims(&self, pod: &'a str) -> Vec<ServiceClaim<'a>> {
        let PortVips { vips, fits: true, .. } = &self.vips else { return Vec::new() };
        let claim = PortClaim { app: pod, by_label: true, is_assigned: false, on_its_hosts: self.on_its_hosts() };
        service_keys(self.labels.service_port, vips, self.protocols, claim)
    }

    fn on_its_hosts(&self) -> bool {
        let fixed = self.endpoint.host_port.and_then(|port| u16::try_from(port).ok());
        fixed.is_some() && fixed == self.labels.service_port
    }
}

/// The endpoints of a definition by the names of container and endpoint.
type Definition<'a> = BTreeMap<(&'a str, &'a str), Port<'a>>;

impl<'a> Reading<'a> {
    /// Adds a pod with its instances.
    pub(super) fn add_pod(&mut self, pod: &'a PodStatus) {
        let current = self.define_pod(&pod.id, &pod.spec);
        for port in current.values() {
            for claim in port.claims(&pod.id) {
                self.merge.claim(claim, &port.labels);
            }
        }
        let mut earlier: BTreeMap<&str, Option<Definition<'a>>> = BTreeMap::new();
        for instance in &pod.instances {
            let instance = match instance {
                Lenient::Good(instance) => instance,
                Lenient::Bad { id, reason } => {
                    let id = id.as_deref().unwrap_or(&pod.id);
                    self.warn(id, format!("the description of an instance cannot be read: {reason}"));
                    continue;
                }
            };
            let definition = match earlier_version(pod, instance) {
                _ if !has_endpoints(instance) => continue,
                None => Some(&current),
                Some(version) => earlier.entry(version).or_insert_with(|| self.earlier_pod(&pod.id, version)).as_ref(),
            };
            if definition.is_none() {
                instance.containers.iter().for_each(|container| self.unplaced(&pod.id, &task_id(instance, container)));
            }
            for container in definition.is_some().then_some(&instance.containers).into_iter().flatten() {
                self.add_container(pod, definition, instance, container);
            }
        }
    }

    fn define_pod(&mut self, id: &str, pod: &'a Pod) -> Definition<'a> {
        let mut definition = Definition::new();
        let (mut claims, mut wrong) = (self.claims.app(), Vec::new());
        for container in &pod.containers {
            for endpoint in &container.endpoints {
                let own = || endpoint.labels.iter().map(|(label, value)| (label.as_str(), value.as_str()));
                let (labels, wrong_labels) = PortLabels::read(PortLabels::default(), own(), self.options.group_size);
                let (vips, wrong_vips) = claims.next_port(own());
                let protocols = ports::protocols(&endpoint.protocol.join(","));
                let name = &endpoint.name;
                let of_endpoint = |reason| format!("endpoint {name:?}, {reason}");
                wrong.extend(wrong_labels.into_iter().chain(wrong_vips).map(of_endpoint));
                if protocols.is_empty() {
                    let protocol = &endpoint.protocol;
                    wrong.push(format!("endpoint {name:?} has the protocols {protocol:?}; only tcp and udp are known"));
                }
                let checked = container.health_check.as_ref().is_some_and(|check| !check.is_null());
                let port = Port { endpoint, labels, vips, protocols, checked };
                definition.insert((container.name.as_str(), endpoint.name.as_str()), port);
            }
        }
        wrong.extend(claims.finish());
        for reason in wrong {
            self.warn(id, reason);
        }
        definition
    }

    /// Returns an earlier definition of a pod, if Marathon still has it.
    fn earlier_pod(&mut self, id: &str, version: &str) -> Option<Definition<'a>> {
        let lookups = self.lookups;
        match lookups.pods.get(&(id.to_owned(), version.to_owned())) {
            Some(Ok(pod)) => Some(self.define_pod(id, pod)),
            Some(Err(reason)) => {
                let left_out =
                    "the endpoints of the instances that still run it are not known, so they get no new connections";
                self.warn(id, format!("the definition of version {version} cannot be read: {reason}; {left_out}"));
                None
            }
            // A caller that skips the lookups gets only what is certain without them.
            None => None,
        }
    }

    fn add_container(
        &mut self,
        pod: &'a PodStatus,
        definition: Option<&Definition<'a>>,
        instance: &'a PodInstance,
        container: &'a ContainerStatus,
    ) {
        for status in &container.endpoints {
            let port = definition.and_then(|all| all.get(&(container.name.as_str(), status.name.as_str())));
            let Some(port) = port else { continue };
            let claims = port.claims(&pod.id);
            if claims.is_empty() {
                continue;
            }
            let condition = self.container_state(pod, instance, container);
            let task = task_id(instance, container);
            if condition == TaskState::Unreachable {
                self.notes.unreachable.insert(task.clone().into_owned(), pod.id.clone());
            }
            let (address, number) = match self.place(instance, port.endpoint, status) {
                Ok(Some(place)) => place,
                Ok(None) => {
                    self.unplaced(&pod.id, &task);
                    continue;
                }
                Err(reason) => {
                    self.unplaced(&pod.id, &task);
                    self.warn(&instance.id, format!("endpoint {:?}: {reason} (pod {})", status.name, pod.id));
                    continue;
                }
            };
            let health = health(port.checked, instance, container, status);
            let unchecked = if health == Health::Unchecked { self.new_start(&container.status_since) } else { None };
            let (weight, maxconn) = (port.labels.weight, port.labels.maxconn);
            let member = Member { status: TaskStatus { condition, health, ready: true }, weight, maxconn, unchecked };
            for claim in claims {
                self.merge.add(claim, &port.labels, (task.clone(), address, number), member);
            }
        }
    }

    /// Returns the state of a container: its own state first, then that of its instance.
    fn container_state(&mut self, pod: &PodStatus, instance: &PodInstance, container: &ContainerStatus) -> TaskState {
        let own = match container.status.as_str() {
            "" if instance.status == "STABLE" => TaskState::Running,
            "" => TaskState::Starting,
            word => self.known_state(&instance.id, word, mesos_state(word)),
        };
        if own != TaskState::Running {
            return own;
        }
        let ended = |it: &ContainerStatus| mesos_state(&it.status) == Some(TaskState::Ended);
        let condition = match instance.status.as_str() {
            // Marathon stops the containers that are left, and starts the whole instance again.
            "PENDING" | "STAGING" if instance.containers.iter().any(ended) => Some(TaskState::Killing),
            "PENDING" | "STAGING" => Some(TaskState::Starting),
            // Marathon stops the instance, or a deployment deletes the pod.
            "TERMINAL" => Some(TaskState::Killing),
            "STABLE" | "DEGRADED" if instance.message.contains(UNREACHABLE) => Some(TaskState::Unreachable),
            "STABLE" | "DEGRADED" if pod.status == "TERMINAL" => Some(TaskState::Killing),
            "STABLE" | "DEGRADED" => Some(TaskState::Running),
            _ => None,
        };
        self.known_state(&instance.id, &instance.status, condition)
    }

    /// Returns the address and port of an endpoint; `None` while they are not assigned yet.
    fn place(
        &self,
        instance: &PodInstance,
        endpoint: &PodEndpoint,
        status: &EndpointStatus,
    ) -> Result<Option<(IpAddr, u16)>, String> {
        let (address, number) = match status.allocated_host_port {
            Some(number) => (Some(self.lookups.host(&instance.agent_hostname)?), number),
            None if endpoint.host_port.is_some() => return Ok(None),
            None => (own_address(instance, &endpoint.network_names)?, endpoint.container_port),
        };
        match u16::try_from(number) {
            Ok(port) if port > 0 => Ok(address.map(|address| (address, port))),
            Ok(_) | Err(_) => Err(format!("its port {number} is not from 1 to 65535")),
        }
    }
}

/// Returns the address of an instance on one of these networks, or on any network if no name is given.
fn own_address(instance: &PodInstance, names: &[String]) -> Result<Option<IpAddr>, String> {
    let fits = instance.networks.iter().filter(|network| names.is_empty() || names.contains(&network.name));
    let Some(network) = fits.into_iter().find(|network| !network.addresses.is_empty()) else { return Ok(None) };
    let parse = |text: &String| text.parse::<IpAddr>().map_err(|_| format!("{text:?} is not an IP address"));
    let all: Vec<IpAddr> = network.addresses.iter().map(parse).collect::<Result<_, _>>()?;
    // An instance on two families has an address of each. One is enough, and every client has IPv4.
    Ok(all.iter().copied().find(IpAddr::is_ipv4).or(all.first().copied()))
}

/// Returns the id of the Mesos task of a container.
fn task_id<'a>(instance: &'a PodInstance, container: &'a ContainerStatus) -> Cow<'a, str> {
    match container.container_id.as_str() {
        "" => format!("{}.{}", instance.id, container.name).into(),
        id => id.into(),
    }
}

/// Returns the health of an endpoint.
fn health(checked: bool, instance: &PodInstance, container: &ContainerStatus, status: &EndpointStatus) -> Health {
    let result = container.conditions.iter().find(|condition| condition.is_health());
    match (status.healthy, result) {
        (_, Some(result)) if result.is_unreported() => match checked {
            true => Health::Unknown,
            false => Health::Unchecked,
        },
        (Some(false), _) => Health::Failing,
        (_, Some(result)) if result.value != "true" => Health::Failing,
        (Some(true), _) | (_, Some(_)) => Health::Alive,
        (None, None) if !checked => Health::Unchecked,
        (None, None) if instance.status == "STABLE" => Health::Alive,
        (None, None) => Health::Unknown,
    }
}
