//! Attaches and detaches the hooks of interfaces, as the interfaces are now. Each run reads the whole state from the
//! kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::Ebpf;
use aya_obj::generated::XDP_FLAGS_DRV_MODE;
use nix::libc;
use rtnetlink::Handle;

use super::{
    super::{
        Pins, attach, bpf,
        hook_names::{PACKET_HOOKS, XDP_INGRESS},
        pins::remove,
    },
    InterfaceWarning, RemoteClients, attach_type, filter_name,
    interface_map::InterfaceMap,
    match_names::{Device, resolve},
    netlink::{self, Filter},
    pinned_link::{self, PinnedLink},
    read_filter_name,
};
use crate::dataplane::Error;

/// A loaded program and the kernel's id of it.
#[derive(Debug)]
struct Program {
    fd: OwnedFd,
    id: u32,
}

/// Keeps the hooks of interfaces attached.
#[derive(Debug)]
pub struct Interfaces {
    pins: Pins,
    wanted: RemoteClients,
    programs: BTreeMap<&'static str, Program>,
    map: InterfaceMap,
    /// Whether the kernel supports tcx; `None` until the first link is created.
    has_tcx: Option<bool>,
    /// The index of each served interface, by its configured name.
    interface_of: BTreeMap<String, u32>,
    /// Whether the next run is the first, which also adopts the hooks of an earlier agent.
    first: bool,
}

/// Loads the programs of the wanted hooks.
///
/// # Errors
/// Fails if the kernel refuses a program.
pub(in super::super) fn load(object: &mut Ebpf, wanted: &RemoteClients) -> Result<(), Error> {
    for hook in wanted.hooks() {
        let program = attach::program(object, hook)?;
        attach::load_one(program).map_err(|error| {
            let Error::Kernel { action, reason } = Error::kernel(format!("load the program of {hook}"), &error) else {
                unreachable!("Error::kernel returns Error::Kernel")
            };
            Error::host(
                format!("cannot {action}: {reason}"),
                "this kernel cannot serve remote clients: start without --interface, or upgrade the kernel",
            )
        })?;
    }
    Ok(())
}

/// Refuses a foreign XDP program on a wanted interface, before anything is attached.
///
/// # Errors
/// Fails if there is one, with its id.
pub(in super::super) fn refuse_foreign_xdp(pins: &Pins, wanted: &RemoteClients) -> Result<(), Error> {
    if !wanted.xdp {
        return Ok(());
    }
    let devices = netlink::with_netlink(|netlink| async move { netlink::devices(&netlink).await });
    let devices = devices.map_err(|error| Error::kernel("list the interfaces of this host", &error))?;
    let ours = our_xdp(pins);
    for device in resolve(&wanted.names, &devices, &BTreeMap::new()).into_values() {
        if let Some(program) = device.xdp.filter(|program| !ours.contains(program)) {
            return Err(Error::host(
                format!("interface {} already has an XDP program, {program}", device.name),
                format!("find its owner with `bpftool prog show id {program}` and remove it, or start with --xdp off"),
            ));
        }
    }
    Ok(())
}

/// Returns the ids of the XDP programs behind our links, those of other map ABI versions included.
fn our_xdp(pins: &Pins) -> BTreeSet<u32> {
    let all = std::iter::once(pins.clone()).chain(pins.other_versions());
    let existing = all.flat_map(|pins| pinned_link::attached_links(&pins));
    existing.filter(|((hook, _), _)| *hook == XDP_INGRESS).map(|(_, existing)| existing.at.program).collect()
}

impl Interfaces {
    /// Takes the loaded programs from the object.
    ///
    /// # Errors
    /// Fails if a program is not loaded, or if the map cannot be opened.
    pub(in super::super) fn new(object: &mut Ebpf, pins: &Pins, wanted: RemoteClients) -> Result<Self, Error> {
        let mut programs = BTreeMap::new();
        for hook in wanted.hooks() {
            let failed = |error: &dyn std::error::Error| Error::kernel(format!("open the program of {hook}"), error);
            let program = attach::program(object, hook)?;
            let fd = attach::program_fd(program).map_err(|error| failed(&error))?;
            let fd = fd.try_clone_to_owned().map_err(|error| failed(&error))?;
            let id = program.info().map_err(|error| failed(&error))?.id();
            programs.insert(hook, Program { fd, id });
        }
        let map = InterfaceMap::open(pins)?;
        Ok(Self {
            pins: pins.clone(),
            wanted,
            programs,
            map,
            has_tcx: None,
            interface_of: BTreeMap::new(),
            first: true,
        })
    }

    /// Attaches and detaches hooks as the interfaces are now. Returns warnings for what cannot be done.
    ///
    /// # Errors
    /// Fails if the kernel does not list its interfaces; then nothing changes.
    pub async fn reconcile(&mut self, netlink: &Handle) -> Result<Vec<InterfaceWarning>, Error> {
        let failed = |error: io::Error| Error::kernel("list the interfaces of this host", &error);
        let devices = netlink::devices(netlink).await.map_err(failed)?;
        let ours = pinned_link::attached_links(&self.pins);
        let others: Vec<_> = self.pins.other_versions().iter().map(pinned_link::attached_links).collect();
        if self.first {
            self.pin_programs()?;
            self.adopt_attached(&ours, &others);
            if self.has_tcx != Some(true) {
                for device in &devices {
                    let filters = self.filters(netlink, device.index).await.map_err(failed)?;
                    let found = filters.iter().filter_map(|it| read_filter_name(&it.name, self.pins.bpffs()));
                    self.interface_of.extend(found.map(|(_, interface)| (interface, device.index)));
                }
            }
        }
        let mut warnings = Vec::new();
        let found: BTreeMap<_, _> = resolve(&self.wanted.names, &devices, &self.interface_of)
            .into_iter()
            .map(|(name, device)| (name, device.clone()))
            .collect();
        self.detach_unwanted(netlink, &devices, &found, ours.iter().chain(others.iter().flatten()))
            .await
            .map_err(failed)?;
        let mut attached = Vec::new();
        for (name, device) in &found {
            if !device.ethernet {
                let reason = "it is not an Ethernet interface, so it cannot serve clients; remove it from --interface";
                warnings.push(InterfaceWarning { interface: name.clone(), reason: reason.into() });
                continue;
            }
            let (mut served, mut xdp) = (true, self.wanted.xdp);
            for hook in self.wanted.hooks().collect::<Vec<_>>() {
                let key = (hook, name.clone());
                let existing = ours.get(&key);
                let other_abi = others.iter().find_map(|others| others.get(&key));
                if let Err(reason) = self.attach(netlink, hook, (name, device), existing, other_abi).await {
                    warnings.push(InterfaceWarning { interface: name.clone(), reason });
                    // Without XDP, TC forwards all packets.
                    if hook == XDP_INGRESS { xdp = false } else { served = false }
                }
            }
            if served {
                self.interface_of.insert(name.clone(), device.index);
                attached.push((device, xdp));
            }
        }
        for name in self.wanted.names.iter().filter(|name| !found.contains_key(*name)) {
            let reason = "there is no such interface: it serves remote clients once it exists; check the name";
            warnings.push(InterfaceWarning { interface: name.clone(), reason: reason.into() });
        }
        // With one interface, packets leave where they came in, which needs no forwarding sysctl.
        if self.wanted.names.len() > 1 {
            warnings.extend(attached.iter().filter_map(|(device, _)| forwarding_warning(device)));
        }
        self.map.write(&attached, &devices)?;
        self.first = false;
        Ok(warnings)
    }

    /// Records on which interfaces an earlier agent attached hooks.
    fn adopt_attached(
        &mut self,
        ours: &BTreeMap<(&'static str, String), PinnedLink>,
        others: &[BTreeMap<(&'static str, String), PinnedLink>],
    ) {
        for ((hook, name), existing) in others.iter().flatten().chain(ours) {
            self.interface_of.insert(name.clone(), existing.at.interface);
            if *hook != XDP_INGRESS {
                self.has_tcx = Some(true);
            }
        }
    }

    async fn filters(&self, netlink: &Handle, interface: u32) -> io::Result<Vec<Filter>> {
        netlink::filters(netlink, interface, |name| read_filter_name(name, self.pins.bpffs()).is_some()).await
    }

    /// Detaches hooks that are not wanted, from interfaces that are wanted or not.
    async fn detach_unwanted<'a>(
        &mut self,
        netlink: &Handle,
        devices: &[Device],
        found: &BTreeMap<String, Device>,
        existing: impl Iterator<Item = (&'a (&'static str, String), &'a PinnedLink)>,
    ) -> io::Result<()> {
        let hooks: Vec<_> = self.wanted.hooks().collect();
        let is_wanted = |hook: &str, name: &str, index: u32| {
            hooks.contains(&hook) && found.get(name).is_some_and(|device| device.index == index)
        };
        // Forward hooks first.
        let mut left: Vec<_> = existing.filter(|((hook, name), it)| !is_wanted(hook, name, it.at.interface)).collect();
        left.sort_by_key(|((hook, _), _)| PACKET_HOOKS.iter().rev().position(|it| it == hook));
        for ((hook, name), existing) in left {
            remove(&existing.pin)?;
            tracing::info!("{hook} no longer runs on interface {name} ({})", existing.at.interface);
        }
        let left = |index: &u32| found.values().all(|device| device.index != *index);
        for index in self.interface_of.values().copied().filter(left).collect::<BTreeSet<_>>() {
            if devices.iter().any(|device| device.index == index) && self.has_tcx != Some(true) {
                for filter in self.filters(netlink, index).await? {
                    netlink::remove_filter(netlink, &filter).await?;
                }
            }
        }
        self.interface_of.retain(|name, index| found.get(name).is_some_and(|device| device.index == *index));
        Ok(())
    }

    /// Attaches a hook to an interface, or replaces its program. Returns the reason for the operator on failure.
    async fn attach(
        &mut self,
        netlink: &Handle,
        hook: &'static str,
        (name, device): (&str, &Device),
        existing: Option<&PinnedLink>,
        other_abi: Option<&PinnedLink>,
    ) -> Result<(), String> {
        let Some(program) = self.programs.get(hook) else { return Err(format!("{hook} is not loaded")) };
        let failed = |what: &str, error: io::Error| format!("cannot {what} {hook}: {error}");
        let is_here = |it: &&PinnedLink| it.at.interface == device.index;
        if let Some(existing) = existing.filter(is_here) {
            if existing.at.program != program.id {
                bpf::update_link(existing.link.as_fd(), program.fd.as_fd())
                    .map_err(|error| failed("replace the program of", error))?;
            }
            return Ok(());
        }
        let pin = self.pins.interface_link(hook, name);
        if let Some(other) = other_abi.filter(is_here) {
            bpf::update_link(other.link.as_fd(), program.fd.as_fd())
                .map_err(|error| failed("replace the program of", error))?;
            // In one step, so that after a crash the next start finds exactly one pin, whichever version it is.
            return fs::rename(&other.pin, &pin).map_err(|error| failed("take over the link of", error));
        }
        let made = if hook == XDP_INGRESS {
            if let Some(other) = device.xdp {
                return Err(format!(
                    "it already has an XDP program, {other}, which stays: TC forwards established connections, which is \
                     slower; find its owner with `bpftool prog show id {other}`"
                ));
            }
            // Runs XDP in the driver, or fails.
            bpf::create_interface_link(program.fd.as_fd(), device.index, attach_type(hook), XDP_FLAGS_DRV_MODE)
                .map_err(|error| match error.raw_os_error() {
                    Some(libc::EOPNOTSUPP | libc::EINVAL) => format!(
                        "its driver does not support XDP, or not with this MTU or these queues ({error}): TC forwards \
                         established connections, which is slower; remove --xdp native to silence this warning"
                    ),
                    _ => failed("attach", error),
                })?
        } else if self.has_tcx == Some(false) {
            return self.attach_filter(netlink, hook, (name, device)).await;
        } else {
            match bpf::create_interface_link(program.fd.as_fd(), device.index, attach_type(hook), 0) {
                // Linux before 6.6 has no tcx.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.has_tcx.is_none() => {
                    self.has_tcx = Some(false);
                    return self.attach_filter(netlink, hook, (name, device)).await;
                }
                made => made.map_err(|error| failed("attach", error))?,
            }
        };
        if hook != XDP_INGRESS {
            self.has_tcx = Some(true);
        }
        pinned_link::pin(made, &pin).map_err(|error| failed("pin the link of", error))?;
        tracing::info!("{hook} runs on interface {}", device.name);
        Ok(())
    }

    async fn attach_filter(&self, netlink: &Handle, hook: &str, (name, device): (&str, &Device)) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot attach {hook} by clsact: {error}");
        let (program, egress) = (&self.programs[hook], hook == "tc_egress");
        let filters = self.filters(netlink, device.index).await.map_err(failed)?;
        let ours = filters.iter().find(|filter| filter.egress == egress);
        if ours.is_some_and(|filter| filter.program == program.id) {
            return Ok(());
        }
        let filter_name = filter_name(hook, name, self.pins.bpffs());
        let at = (device.index, egress);
        let put = netlink::put_filter(netlink, at, &filter_name, program.fd.as_fd(), ours.is_some()).await;
        put.map_err(failed)?;
        tracing::info!("{hook} runs on interface {}, by a clsact filter", device.name);
        Ok(())
    }

    /// Pins the programs, so that commands can read their statistics.
    fn pin_programs(&self) -> Result<(), Error> {
        for (hook, program) in &self.programs {
            let pin = self.pins.program(hook);
            let pinned = remove(&pin).and_then(|_| bpf::pin(program.fd.as_fd(), &pin));
            pinned.map_err(|error| Error::kernel(format!("pin the program of {hook}"), &error))?;
        }
        Ok(())
    }
}

/// Returns a warning if the host does not forward packets from an interface.
fn forwarding_warning(device: &Device) -> Option<InterfaceWarning> {
    let forwards = |family: &str| {
        let path = format!("/proc/sys/net/{family}/conf/{}/forwarding", device.name);
        // An unreadable setting may be right.
        fs::read_to_string(path).map_or(true, |text| text.trim() != "0")
    };
    let needed = [("ipv4", device.v4.is_some()), ("ipv6", device.v6.is_some())];
    let off: Vec<_> = needed.into_iter().filter(|(family, has)| *has && !forwards(family)).collect();
    let settings: Vec<_> =
        off.iter().map(|(family, _)| format!("net.{family}.conf.{}.forwarding", device.name)).collect();
    (!off.is_empty()).then(|| InterfaceWarning {
        interface: device.name.clone(),
        reason: format!(
            "{} is 0: its clients reach only backends on this host and backends behind the same interface; set it to 1 \
             with sysctl to reach others",
            settings.join(" and ")
        ),
    })
}
